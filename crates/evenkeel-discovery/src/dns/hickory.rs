//! The resolver, by Hickory: servers, search domains and the hosts file.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use evenkeel_core::BoxError;
use hickory_resolver::{
    Hosts, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    lookup::Lookup,
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::{Query, ResponseCode},
        rr::{Name, RData, RecordType},
    },
    system_conf::read_system_conf,
};
use tokio::time::timeout;

use super::resolver::{Answer, Ask, Family, Resolver, Service};

/// These servers, or those of the system.
#[derive(Clone, Debug)]
pub(super) struct Hickory {
    pub(super) servers: Vec<SocketAddr>,
    pub(super) timeout: Duration,
}

pub(super) struct HickorySession {
    search: Search,
    hosts: Hosts,
    all: Servers,
    /// Each server alone, where there are several.
    each: Vec<Servers>,
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

    fn configuration(&self) -> Result<(ResolverConfig, ResolverOpts, Hosts), NetError> {
        if self.servers.is_empty() {
            let (config, options) = read_system_conf()?;
            return Ok((config, options, Hosts::from_system().unwrap_or_default()));
        }
        let servers = self.servers.iter().map(|server| {
            let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            connections.iter_mut().for_each(|connection| connection.port = server.port());
            NameServerConfig::new(server.ip(), true, connections)
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        Ok((config, ResolverOpts::default(), Hosts::default()))
    }
}

impl Resolver for Hickory {
    type Session = HickorySession;

    fn session(&self) -> Result<HickorySession, BoxError> {
        let (config, options, hosts) = self.configuration()?;
        Ok(HickorySession::new(&config, options, hosts, self.timeout)?)
    }
}

impl HickorySession {
    fn new(
        config: &ResolverConfig,
        mut options: ResolverOpts,
        hosts: Hosts,
        timeout: Duration,
    ) -> Result<Self, NetError> {
        // The time to live is decided here; a second cache would only disagree.
        options.cache_size = 0;
        // With intermediates, an alias of an SRV name would be taken for one of its targets.
        options.preserve_intermediates = false;
        // Hickory looks up only the first full name there, and each family separately.
        options.use_hosts_file = ResolveHosts::Never;
        options.timeout = options.timeout.min(timeout / 4);
        let servers = config.name_servers();
        let of = |servers: &[NameServerConfig]| Servers::new(servers, &options);
        let each = if servers.len() < 2 {
            vec![]
        } else {
            servers
                .iter()
                .map(|server| of(std::slice::from_ref(server)))
                .collect::<Result<_, _>>()?
        };
        let search = Search::new(config, options.ndots);
        Ok(Self { search, hosts, all: of(servers)?, each, timeout })
    }

    async fn ask<T>(
        &self,
        name: &str,
        kind: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Result<Answer<T>, BoxError> {
        let mut name = Name::from_ascii(name)?;
        name.set_fqdn(true);
        if self.is_in_hosts(&name) {
            let lookup = self.hosts.lookup_static_host(&Query::query(name, kind));
            let records = lookup.as_ref().map_or_else(Vec::new, |lookup| records(lookup, read));
            return Ok(Answer { records, ttl: HOSTS_TTL });
        }
        let lookup = timeout(self.timeout, self.lookup(&name, kind));
        match lookup.await.map_err(|_| NoAnswer(self.timeout))? {
            Ok(lookup) => Ok(Answer { records: records(&lookup, read), ttl: ttl(&lookup) }),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                let ttl = none.negative_ttl.unwrap_or_default();
                Ok(Answer { records: vec![], ttl: Duration::from_secs(ttl.into()) })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Asks all servers. If one of them cannot say, asks each of them in turn, as resolvers do.
    async fn lookup(&self, name: &Name, kind: RecordType) -> Result<Lookup, NetError> {
        let asked = self.all.lookup(name, kind).await;
        if !matches!(asked, Err(NetError::Dns(DnsError::ResponseCode(_)))) {
            return asked;
        }
        for server in &self.each {
            let answer = server.lookup(name, kind).await;
            if is_answer(&answer) {
                return answer;
            }
        }
        asked
    }

    fn is_in_hosts(&self, name: &Name) -> bool {
        [RecordType::A, RecordType::AAAA]
            .into_iter()
            .any(|kind| self.hosts.lookup_static_host(&Query::query(name.clone(), kind)).is_some())
    }
}

/// The TTL of an entry of the hosts file, longer than any that is believed. The file is read when a
/// session begins.
const HOSTS_TTL: Duration = Duration::from_secs(86_400);

impl Ask for HickorySession {
    fn names(&self, name: &str) -> Vec<Arc<str>> {
        let names = self.search.names(name);
        // A name in the hosts file means what stands there, wherever else it could be found.
        let as_written = Name::from_ascii(name).ok().filter(|name| self.is_in_hosts(name));
        match as_written {
            Some(mut name) => {
                name.set_fqdn(true);
                vec![name.to_ascii().into()]
            }
            None => names,
        }
    }

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

/// The full names that a name may stand for, as `search` and `ndots` in resolv.conf(5) say.
struct Search {
    domains: Vec<Name>,
    ndots: usize,
}

impl Search {
    fn new(config: &ResolverConfig, ndots: usize) -> Self {
        let mut domains = config.search().to_vec();
        if domains.is_empty() {
            domains.extend(config.domain().cloned());
        }
        Self { domains, ndots }
    }

    fn names(&self, text: &str) -> Vec<Arc<str>> {
        // ASCII only: a name that would be translated from Unicode may not contain `_`.
        let Ok(name) = Name::from_ascii(text) else { return vec![text.into()] };
        let mut full = name.clone();
        full.set_fqdn(true);
        let mut names = vec![];
        if !name.is_fqdn() {
            let domains = self.domains.iter();
            names.extend(domains.filter_map(|domain| name.clone().append_domain(domain).ok()));
        }
        let dots = usize::from(name.num_labels()).saturating_sub(1);
        let is_first = self.ndots <= dots || name.is_localhost();
        names.insert(if is_first { 0 } else { names.len() }, full);
        let mut texts: Vec<Arc<str>> = vec![];
        for name in names {
            let text = name.to_ascii().into();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        texts
    }
}

/// Some servers, asked with EDNS as long as they accept it.
struct Servers {
    edns: TokioResolver,
    plain: TokioResolver,
    lack_edns: AtomicBool,
}

impl Servers {
    fn new(servers: &[NameServerConfig], options: &ResolverOpts) -> Result<Self, NetError> {
        let resolver = |edns0| {
            let config = ResolverConfig::from_name_servers(servers.to_vec());
            let mut builder =
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::new());
            *builder.options_mut() = options.clone();
            builder.options_mut().edns0 = edns0;
            builder.build()
        };
        Ok(Self { edns: resolver(true)?, plain: resolver(false)?, lack_edns: false.into() })
    }

    /// Asks for a full name; once more without EDNS, if the server may not understand it.
    async fn lookup(&self, name: &Name, kind: RecordType) -> Result<Lookup, NetError> {
        if !self.lack_edns.load(Relaxed) {
            let asked = self.edns.lookup(name.clone(), kind).await;
            if !asked.as_ref().is_err_and(may_lack_edns) {
                return asked;
            }
        }
        let asked = self.plain.lookup(name.clone(), kind).await;
        if is_answer(&asked) {
            self.lack_edns.store(true, Relaxed);
        }
        asked
    }
}

/// Whether a server may not know EDNS. It should answer FORMERR (RFC 6891, section 7); some answer
/// NOTIMP, and some nothing. A FORMERR without the question in it is not taken for an answer.
fn may_lack_edns(error: &NetError) -> bool {
    matches!(
        error,
        NetError::Timeout
            | NetError::Dns(DnsError::ResponseCode(ResponseCode::FormErr | ResponseCode::NotImp))
    )
}

/// Whether a server gave records, or said that there are none.
fn is_answer(asked: &Result<Lookup, NetError>) -> bool {
    matches!(asked, Ok(_) | Err(NetError::Dns(DnsError::NoRecordsFound(_))))
}

fn records<T>(lookup: &Lookup, read: impl Fn(&RData) -> Option<T>) -> Vec<T> {
    lookup.answers().iter().filter_map(|record| read(&record.data)).collect()
}

/// The least time to live in the answer, including aliases.
///
/// Not `valid_until`, which counts on the system's clock and applies bounds of its own.
fn ttl(lookup: &Lookup) -> Duration {
    let ttl = lookup.answers().iter().map(|record| record.ttl).min();
    Duration::from_secs(ttl.unwrap_or_default().into())
}

#[cfg(test)]
mod tests;
