//! The questions to a resolver.

use std::{net::IpAddr, sync::Arc, time::Duration};

use evenkeel_core::BoxError;
use hickory_resolver::net::{DnsError, NetError};

/// A resolver; a trait so that the rules of time can be tested without a network.
pub(super) trait Resolver: Clone + Send + Sync + 'static {
    /// The state that is set up once for a session.
    type Session: Ask;

    /// Sets up a session.
    fn session(&self) -> Result<Self::Session, BoxError>;
}

/// One session with a resolver.
pub(super) trait Ask: Send + Sync {
    /// The full names that `name` may stand for, in the order in which to ask.
    fn names(&self, name: &str) -> Vec<Arc<str>>;

    /// The addresses of `host`, a full name, in one family.
    fn addresses(
        &self,
        host: &str,
        family: Family,
    ) -> impl Future<Output = Result<Answer<IpAddr>, BoxError>> + Send;

    /// The SRV records of `name`, a full name.
    fn services(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Answer<Service>, BoxError>> + Send;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Family {
    V4,
    V6,
}

/// A server's answer; without records, it says that there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer<T> {
    pub(super) records: Vec<T>,
    pub(super) ttl: Duration,
}

/// An SRV record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Service {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    /// The host, with its final dot.
    pub(super) target: Arc<str>,
}

/// Whether a server answered that it cannot say, such as SERVFAIL. Otherwise none answered at all.
pub(super) fn is_refusal(error: &BoxError) -> bool {
    let error = error.downcast_ref();
    matches!(error, Some(NetError::Dns(DnsError::ResponseCode(_))))
}
