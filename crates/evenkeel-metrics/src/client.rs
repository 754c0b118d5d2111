//! The name of a client, which tells its series, events and spans from those of other clients.

use std::{cell::RefCell, mem, sync::Arc};

thread_local! {
    static CURRENT: RefCell<Client> = const { RefCell::new(Client(None)) };
}

/// Builds a stack whose layers carry the client name `name`: in the label `client` of their
/// metrics, and in the field `client` of their events and spans.
///
/// The name applies to all layers that make their service while `build` runs, at any depth of the
/// stack. It also applies to what they make later, such as the services of endpoints. If calls are
/// nested, the innermost name applies. Nothing is remembered after `build` has returned. A stack
/// built outside has no name, and its series have no such label.
///
/// Use a small, fixed set of names: each name creates its own series.
///
/// ```
/// use evenkeel::metrics::{Client, named};
///
/// // In practice `ServiceBuilder::new().layer(..).service(..)`: each layer does this when it makes its service.
/// let build = Client::current;
///
/// let orders = named("orders", build);
///
/// assert_eq!(orders.name(), Some("orders"));
/// assert_eq!(build().name(), None);
/// ```
pub fn named<T>(name: impl Into<Arc<str>>, build: impl FnOnce() -> T) -> T {
    Client(Some(name.into())).scope(build)
}

/// The client that a layer belongs to, with or without a name. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Client(Option<Arc<str>>);

impl Client {
    /// The client whose stack [`named`] is building on this thread, or one without a name.
    #[must_use]
    pub fn current() -> Self {
        CURRENT.with_borrow(Self::clone)
    }

    /// The client's name, if it has one.
    #[inline]
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// Runs `build`, so that what it makes belongs to this client, too.
    pub fn scope<T>(&self, build: impl FnOnce() -> T) -> T {
        let _before = Before(CURRENT.replace(self.clone()));
        build()
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn label(&self) -> Option<metrics::Label> {
        self.0.as_ref().map(|name| metrics::Label::new("client", name.clone()))
    }
}

impl From<Option<Arc<str>>> for Client {
    fn from(name: Option<Arc<str>>) -> Self {
        Self(name)
    }
}

/// The client that was current before, which is restored on drop.
struct Before(Client);

impl Drop for Before {
    fn drop(&mut self) {
        CURRENT.set(mem::take(&mut self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_name_holds_and_nothing_is_left_behind() {
        let current = || Client::current().name().map(str::to_owned);

        let seen = named("a", || {
            let inner = named("b", current);
            (inner, current())
        });
        let panicked = std::panic::catch_unwind(|| named("c", || panic!("while it is built")));

        assert_eq!(seen, (Some("b".into()), Some("a".into())));
        assert!(panicked.is_err());
        assert_eq!(current(), None);
    }
}
