//! The questions that are asked, and hickory as who answers them.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use evenkeel_core::BoxError;
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    lookup::Lookup,
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RData, RecordType},
};
use tokio::time::timeout;

/// Who answers questions; a trait so that the rules of time can be tested without a network.
pub(super) trait Resolver: Clone + Send + Sync + 'static {
    /// What is set up once for a session.
    type Session: Ask;

    /// Sets up a session.
    fn session(&self) -> Result<Self::Session, BoxError>;
}

/// One session with a resolver.
pub(super) trait Ask: Send + Sync {
    /// The addresses of `host` in one family.
    fn addresses(
        &self,
        host: &str,
        family: Family,
    ) -> impl Future<Output = Result<Answer<IpAddr>, BoxError>> + Send;

    /// The SRV records of `name`.
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

/// What a server said; without records, that there are none.
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

/// The servers of the system, or these.
#[derive(Clone, Debug)]
pub(super) struct Hickory {
    pub(super) servers: Vec<SocketAddr>,
    pub(super) timeout: Duration,
}

pub(super) struct HickorySession {
    resolver: TokioResolver,
    timeout: Duration,
}

#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
struct NoAnswer(Duration);

pub(super) fn is_name(name: &str) -> bool {
    Name::from_ascii(name).is_ok()
}

impl Hickory {
    pub(super) fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers, timeout: Duration::from_secs(10) }
    }
}

impl Resolver for Hickory {
    type Session = HickorySession;

    fn session(&self) -> Result<HickorySession, BoxError> {
        let mut builder = if self.servers.is_empty() {
            TokioResolver::builder_tokio()?
        } else {
            let servers = self.servers.iter().map(|server| {
                let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
                connections.iter_mut().for_each(|connection| connection.port = server.port());
                NameServerConfig::new(server.ip(), true, connections)
            });
            let config = ResolverConfig::from_name_servers(servers.collect());
            let mut builder =
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::new());
            builder.options_mut().use_hosts_file = ResolveHosts::Never;
            builder
        };
        let options = builder.options_mut();
        // How long an answer lives is decided here; a second clock would only disagree.
        options.cache_size = 0;
        // With them, an alias of an SRV name is taken for one of its targets.
        options.preserve_intermediates = false;
        options.edns0 = true;
        options.timeout = options.timeout.min(self.timeout / 4);
        Ok(HickorySession { resolver: builder.build()?, timeout: self.timeout })
    }
}

impl HickorySession {
    async fn ask<T>(
        &self,
        name: &str,
        kind: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Result<Answer<T>, BoxError> {
        let lookup = timeout(self.timeout, self.resolver.lookup(name, kind));
        match lookup.await.map_err(|_| NoAnswer(self.timeout))? {
            Ok(lookup) => Ok(Answer { records: records(&lookup, read), ttl: ttl(&lookup) }),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                let ttl = none.negative_ttl.unwrap_or_default();
                Ok(Answer { records: vec![], ttl: Duration::from_secs(ttl.into()) })
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Ask for HickorySession {
    async fn addresses(&self, host: &str, family: Family) -> Result<Answer<IpAddr>, BoxError> {
        let kind = match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        };
        let read = |data: &RData| match data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        };
        self.ask(host, kind, read).await
    }

    async fn services(&self, name: &str) -> Result<Answer<Service>, BoxError> {
        let read = |data: &RData| match data {
            RData::SRV(srv) => Some(Service {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: srv.target.to_ascii().into(),
            }),
            _ => None,
        };
        self.ask(name, RecordType::SRV, read).await
    }
}

fn records<T>(lookup: &Lookup, read: impl Fn(&RData) -> Option<T>) -> Vec<T> {
    lookup.answers().iter().filter_map(|record| read(&record.data)).collect()
}

/// The least time to live in the answer, aliases included.
///
/// Not `valid_until`: that is counted on the system's clock, and bounds of its own are applied.
fn ttl(lookup: &Lookup) -> Duration {
    let ttl = lookup.answers().iter().map(|record| record.ttl).min();
    Duration::from_secs(ttl.unwrap_or_default().into())
}
