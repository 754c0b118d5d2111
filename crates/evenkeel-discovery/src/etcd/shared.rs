//! Clients that the registrations of a process share.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use evenkeel_core::BoxError;
use tokio::{runtime::Id, sync::OnceCell};

use super::client::Client;
use crate::client::Server;

/// All clients in use: as many as there are members, users and TLS configurations.
static IN_USE: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// A client of one member, and so one connection, for all registrations that ask it in the same
/// way.
pub(crate) struct Shared {
    way: Way,
    client: OnceCell<Client>,
}

/// What has to be equal for a connection to be shared.
#[derive(PartialEq)]
pub(super) struct Way {
    pub(super) server: Server,
    pub(super) user: Option<(Arc<str>, Arc<str>)>,
    pub(super) timeout: Duration,
    #[cfg(feature = "tls")]
    pub(super) tls: evenkeel_net::Tls,
    /// A connection ends with the runtime in which it was made.
    pub(super) runtime: Id,
}

impl Shared {
    /// The shared client for `way`, which is made if there is none.
    pub(super) fn of(way: Way) -> Arc<Self> {
        let mut in_use = in_use();
        in_use.retain(|shared| 0 < shared.strong_count());
        let found = in_use.iter().filter_map(Weak::upgrade).find(|shared| shared.way == way);
        found.unwrap_or_else(|| {
            let made = Arc::new(Self { way, client: OnceCell::new() });
            in_use.push(Arc::downgrade(&made));
            made
        })
    }

    /// The client. The first caller makes and authenticates it.
    pub(crate) async fn client<F>(&self, make: impl FnOnce() -> F) -> Result<Client, BoxError>
    where
        F: Future<Output = Result<Client, BoxError>>,
    {
        self.client.get_or_try_init(make).await.cloned()
    }

    /// Makes the next caller create another client: this one's connection may hang, or its token
    /// may have expired.
    pub(crate) fn give_up(&self) {
        in_use().retain(|shared| !std::ptr::eq(shared.as_ptr(), self));
    }
}

fn in_use() -> MutexGuard<'static, Vec<Weak<Shared>>> {
    IN_USE.lock().unwrap_or_else(PoisonError::into_inner)
}
