//! Which of the full names that a name may stand for counts.

use std::sync::Arc;

use super::{
    memory::{Belief, Freshness},
    resolver::is_refusal,
};

/// The result of asking the full names one after the other.
///
/// The first that has records counts, and no other adds to it. A full name that a server denies is
/// passed over, as resolvers do. So is one for which a server answers that it cannot say, such as
/// SERVFAIL. But then no full name counts that did not count before, as it may belong to another
/// service. When no server answers, no further full name is asked.
pub(super) struct Search<T> {
    /// The full name that counted last.
    known: Option<Arc<str>>,
    found: Option<Belief<T>>,
    failed: Option<Belief<T>>,
    denied: Option<Belief<T>>,
}

impl<T> Search<T> {
    pub(super) fn new(known: Option<Arc<str>>) -> Self {
        Self { known, found: None, failed: None, denied: None }
    }

    /// Takes the belief about the next full name; true if the others need not be asked.
    pub(super) fn take(&mut self, name: &Arc<str>, belief: Belief<T>) -> bool {
        let is_known = self.known.as_ref() == Some(name);
        match &belief.fresh {
            Freshness::Fresh(_) if !belief.records.is_empty() => {
                if self.failed.is_none() || self.known.is_none() || is_known {
                    self.known = Some(name.clone());
                    self.found = Some(belief);
                }
                true
            }
            // To be confirmed before another name counts.
            Freshness::Denied(_) if is_known => {
                self.found = Some(belief);
                true
            }
            // The denial is confirmed, so any other name may count now.
            Freshness::Fresh(_) if is_known => {
                self.known = None;
                self.denied = Some(belief);
                false
            }
            Freshness::Fresh(_) | Freshness::Denied(_) => {
                if is_known || self.denied.is_none() {
                    self.denied = Some(belief);
                }
                false
            }
            Freshness::Failed(error) => {
                let is_over = !is_refusal(error);
                if is_known || self.failed.is_none() {
                    self.failed = Some(belief);
                }
                is_over
            }
        }
    }

    /// The full name that counts, and what is believed about it.
    pub(super) fn end(self) -> (Option<Arc<str>>, Belief<T>) {
        let Self { known, found, failed, denied } = self;
        let belief = found.or(failed).or(denied);
        (known, belief.unwrap_or_else(|| Belief::failed("the name stands for no full name".into())))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn believed(records: &[u8], fresh: Freshness) -> Belief<u8> {
        Belief { records: records.to_vec(), fresh }
    }

    #[test]
    fn a_name_whose_denial_is_confirmed_gives_way_though_another_fails() {
        let [b, c] = ["db.b.", "db."].map(Arc::<str>::from);
        let mut search = Search::new(Some(b.clone()));
        let answered = || Freshness::Fresh(Duration::from_secs(5));
        search.failed = Some(believed(&[], Freshness::Failed("SERVFAIL".into())));

        assert!(!search.take(&b, believed(&[], answered())));
        assert!(search.take(&c, believed(&[1], answered())));

        let (known, belief) = search.end();
        assert_eq!((known, belief.records), (Some(c), vec![1]));
    }
}
