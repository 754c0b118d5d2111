//! Endpoints from etcd: a list, then a watch of what changes.
//!
//! **When to use it.** Where services enter themselves in etcd, in any of the usual [layouts](dialect).
//!
//! ```
//! use evenkeel::discovery::etcd::{Cluster, Etcd};
//!
//! let web = Etcd::new(Cluster::local(), "web");
//! # let _ = web;
//! ```
//!
//! With options:
//!
//! ```
//! use std::time::Duration;
//! use evenkeel::discovery::etcd::{Cluster, Etcd, dialect::Naming};
//!
//! let three = Cluster::at(["http://10.0.0.1:2379", "http://10.0.0.2:2379", "http://10.0.0.3:2379"])?
//!     .user("orders", "secret");
//! let web = Etcd::new(three, "web")
//!     .dialect(Naming)
//!     .quiet(Duration::from_secs(2))
//!     .hold(Duration::from_secs(10));
//! # let _ = web;
//! # Ok::<(), evenkeel::discovery::ServerError>(())
//! ```
//!
//! **What it does.** It reads all keys of the service as they were at one moment, in pages. Then it
//! follows every change after it, each event of each response. A watch that breaks is resumed where
//! it was, on the next member. Before that, one known key has to be found there with its known
//! revision and lease. If it is not, or if what lies between is compacted, all keys are read again
//! and compared. A member without a leader ends the watch. A member that is silent for
//! [`quiet`](Etcd::quiet) (5 s) has as long again to give a sign of life; HTTP/2 pings run beside
//! that.
//!
//! **What it believes.** The first list is believed as it is, even if it is empty. Later, the loss
//! of all endpoints, and a list without some of them after the cluster was built again, are
//! believed when they still hold after [`hold`](Etcd::hold) (5 s). New endpoints are always used at
//! once.
//!
//! **On a bad day.** Refusals, silence and broken streams change nothing. The last set stays, the
//! watchers get the failure as an error, and it is logged once. Then the next member is asked, or
//! the same one after 0.5 s to 10 s. A key with an unreadable value is left out and does not
//! affect the others. If a user's token is no longer known, a new one is fetched.
//!
//! **What it costs.** One connection to one member and one watch for each service, whatever the
//! number of balancers. Memory grows with the keys.
//!
//! The API is that of etcd 3.4 and later. It does not discover members by DNS or from the cluster
//! itself.

pub mod dialect;

pub(crate) mod client;
mod cluster;
mod error;
mod proto;
pub(crate) mod shared;
mod source;
mod table;

use std::{sync::Arc, time::Duration};

use self::source::EtcdSource;
use crate::{settings::follows, watch::Reconnect};

pub use self::{
    cluster::Cluster,
    dialect::Dialect,
    error::{MemberRefused, MemberTimeout, WatchEnded},
};

/// Follows the instances of a service in etcd.
///
/// See the [module docs](self). A clone shares the session of its original.
#[derive(Clone, Debug)]
pub struct Etcd {
    reconnect: Reconnect<EtcdSource>,
}

impl Etcd {
    /// The instances of `service`, laid out as [`dialect::Plain`] by default.
    #[must_use]
    pub fn new(cluster: Cluster, service: impl Into<Arc<str>>) -> Self {
        let source = EtcdSource::new(service.into(), cluster, Arc::new(dialect::Plain));
        Self { reconnect: Reconnect::new(source) }
    }

    /// Sets how entries are laid out. Default: [`dialect::Plain`].
    #[must_use]
    pub fn dialect(self, dialect: impl Dialect) -> Self {
        self.with(|source| source.dialect = Arc::new(dialect))
    }

    /// Sets how long a member may be silent before it has to give a sign of life. Default: 5 s.
    ///
    /// A short one asks more often. A long one is slow to notice that a member hangs, since the
    /// member has as long again to answer.
    ///
    /// # Panics
    /// If it is below 100 ms.
    #[must_use]
    pub fn quiet(self, time: Duration) -> Self {
        assert!(Duration::from_millis(100) <= time, "a silence of {time:?}");
        self.with(|source| source.quiet = time)
    }
}

follows!(Etcd by EtcdSource, with backoff hold max_stale seed);
