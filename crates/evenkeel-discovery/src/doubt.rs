//! Which answers are not believed at once.

use std::{collections::HashMap, time::Duration};

use evenkeel_core::endpoint::Endpoint;
use tokio::time::Instant;

/// What was believed last, and since when an answer has reported a loss that may be temporary.
///
/// Three answers are suspicious: one without any endpoint after one that had some, one that misses
/// endpoints after the registry's state was rebuilt, and one that misses some soon after the
/// registry was away. Such answers come from agents that restart with empty data, servers that
/// restore a snapshot, tokens that expire, and leases that ran out while they could not be renewed.
/// Services enter themselves again within seconds. So missing endpoints are kept for a while, and
/// new ones are used at once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doubt {
    believed: Vec<Endpoint>,
    since: Option<Instant>,
    /// The registry was away: endpoints that go missing are doubted, even if none is missing so
    /// far.
    was_away: bool,
}

/// A registry that was away for longer may have lost entries that could not be renewed.
pub(crate) const AWAY: Duration = Duration::from_secs(3);

/// What is to be used after an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The set that is to be used.
    pub(crate) endpoints: Vec<Endpoint>,
    /// How many of them are kept although the answer misses them, and until when at most.
    pub(crate) kept: Option<(usize, Instant)>,
}

impl Doubt {
    /// Takes an answer. `is_rebuilt` says whether the registry's state was rebuilt before it.
    pub(crate) fn take(
        &mut self,
        answer: Vec<Endpoint>,
        is_rebuilt: bool,
        now: Instant,
        hold: Duration,
    ) -> Verdict {
        let is_emptied = answer.is_empty() && !self.believed.is_empty();
        if is_rebuilt || is_emptied {
            self.since.get_or_insert(now);
        }
        let Some(since) = self.since else { return self.believe(answer) };
        if since + hold <= now {
            return self.believe(answer);
        }
        let mut new: HashMap<_, _> =
            answer.iter().map(|endpoint| (&endpoint.address, endpoint)).collect();
        let mut missing = 0;
        // A known endpoint keeps its position, with the data of the new answer.
        let mut union: Vec<_> = Vec::with_capacity(self.believed.len());
        for known in &self.believed {
            let named = new.remove(&known.address);
            missing += usize::from(named.is_none());
            union.push(named.unwrap_or(known).clone());
        }
        if missing == 0 && !self.was_away {
            return self.believe(answer);
        }
        let joined = answer.iter().filter(|endpoint| new.contains_key(&endpoint.address));
        union.extend(joined.cloned());
        self.believed.clone_from(&union);
        Verdict { endpoints: union, kept: (0 < missing).then_some((missing, since + hold)) }
    }

    /// The registry was away until `now`: doubts from here on any endpoint that goes missing.
    pub(crate) fn was_away(&mut self, now: Instant) {
        if !self.believed.is_empty() {
            (self.since, self.was_away) = (Some(now), true);
        }
    }

    /// Sets what is believed, for callers that keep the set elsewhere while nothing is doubted.
    #[cfg(any(feature = "etcd", feature = "kubernetes"))]
    pub(crate) fn believed(&mut self, endpoints: Vec<Endpoint>) {
        self.believed = endpoints;
    }

    /// When endpoints that are kept in spite of the last answer are let go.
    pub(crate) fn ends_at(&self, hold: Duration) -> Option<Instant> {
        self.since.map(|since| since + hold)
    }

    fn believe(&mut self, answer: Vec<Endpoint>) -> Verdict {
        (self.since, self.was_away) = (None, false);
        self.believed.clone_from(&answer);
        Verdict { endpoints: answer, kept: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const HOLD: Duration = Duration::from_secs(5);

    fn endpoints(ports: &[u16]) -> Vec<Endpoint> {
        ports.iter().map(|port| format!("10.0.0.1:{port}").parse().unwrap()).collect()
    }

    #[test]
    fn an_empty_answer_is_believed_when_it_has_stood_for_a_while() {
        let (mut doubt, now) = (Doubt::default(), clock::now());
        doubt.take(endpoints(&[1]), false, now, HOLD);

        let doubted = doubt.take(vec![], false, now, HOLD);
        assert_eq!(doubted, Verdict { endpoints: endpoints(&[1]), kept: Some((1, now + HOLD)) });

        let almost = now + HOLD - Duration::from_millis(1);
        assert_eq!(doubt.take(vec![], false, almost, HOLD).endpoints, endpoints(&[1]));
        let believed = doubt.take(vec![], false, now + HOLD, HOLD);
        assert_eq!(believed, Verdict { endpoints: vec![], kept: None });
        assert_eq!(doubt.take(vec![], false, now + HOLD, HOLD).kept, None, "and then it is calm");
    }

    #[test]
    fn the_first_answer_is_believed_even_if_it_is_empty() {
        let mut doubt = Doubt::default();
        assert_eq!(doubt.take(vec![], false, clock::now(), HOLD).kept, None);
    }

    #[test]
    fn a_fleet_that_comes_back_one_by_one_is_never_small() {
        let (mut doubt, now) = (Doubt::default(), clock::now());
        doubt.take(endpoints(&[1, 2, 3]), false, now, HOLD);

        assert_eq!(doubt.take(vec![], false, now, HOLD).endpoints.len(), 3);
        assert_eq!(doubt.take(endpoints(&[2]), false, now, HOLD).endpoints.len(), 3);
        let new = doubt.take(endpoints(&[2, 4]), false, now, HOLD);
        assert_eq!(new.endpoints, endpoints(&[1, 2, 3, 4]), "who is new is used at once");
        assert_eq!(doubt.take(endpoints(&[2, 4]), false, now + HOLD, HOLD).endpoints.len(), 2);
    }

    #[test]
    fn what_goes_missing_one_by_one_after_the_registry_was_away_is_kept() {
        let (mut doubt, now) = (Doubt::default(), clock::now());
        doubt.take(endpoints(&[1, 2, 3]), false, now, HOLD);
        doubt.was_away(now);

        let all = doubt.take(endpoints(&[1, 2, 3]), false, now, HOLD);
        assert_eq!(all, Verdict { endpoints: endpoints(&[1, 2, 3]), kept: None });
        for left in [&[2, 3][..], &[3], &[]] {
            assert_eq!(doubt.take(endpoints(left), false, now, HOLD).endpoints.len(), 3);
        }
        assert_eq!(doubt.take(endpoints(&[2, 4]), false, now, HOLD).endpoints.len(), 4);
        let later = now + HOLD;
        assert_eq!(doubt.take(endpoints(&[2, 4]), false, later, HOLD).endpoints.len(), 2);
        assert_eq!(doubt.take(endpoints(&[4]), false, later, HOLD).endpoints.len(), 1);
    }

    #[test]
    fn what_a_rebuilt_registry_misses_is_kept_until_it_is_named_again() {
        let (mut doubt, now) = (Doubt::default(), clock::now());
        doubt.take(endpoints(&[1, 2]), false, now, HOLD);

        assert_eq!(doubt.take(endpoints(&[2]), true, now, HOLD).kept, Some((1, now + HOLD)));
        assert_eq!(doubt.take(endpoints(&[2, 1]), false, now, HOLD).kept, None);
        assert_eq!(doubt.take(endpoints(&[1]), false, now, HOLD).endpoints, endpoints(&[1]));
    }
}
