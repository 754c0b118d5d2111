//! The name of a client, by which its series, events and spans are told from those of others.

use std::{cell::RefCell, mem, sync::Arc};

thread_local! {
    static CURRENT: RefCell<Client> = const { RefCell::new(Client(None)) };
}

/// Builds a stack whose layers name the client `name`: in the label `client` of their metrics, and in the field
/// `client` of their events and spans.
///
/// It holds for all layers that make their service while `build` runs, wherever in the stack they stand, and for what
/// they make later, such as the services of endpoints. Of several around each other the innermost holds. Nothing is
/// remembered when `build` has ended. A stack that is built outside has no name, and its series have no such label.
///
/// The name is one of a fixed few: each brings series of its own.
///
/// ```
/// use evenkeel_metrics::{Client, named};
///
/// // In earnest `ServiceBuilder::new().layer(..).service(..)`: each layer does this when it makes its service.
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

/// The client that a layer belongs to, which may have a name. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Client(Option<Arc<str>>);

impl Client {
    /// The one whose stack is being built on this thread, by [`named`]; one without a name where none is.
    #[must_use]
    pub fn current() -> Self {
        CURRENT.with_borrow(Self::clone)
    }

    /// Its name, if it has one.
    #[inline]
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// Has what `build` makes belong to this client, too.
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

/// What was current before, and is again when this is dropped.
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
