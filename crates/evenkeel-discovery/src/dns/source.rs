//! When DNS is asked, and how the answers are combined.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use evenkeel_core::{BoxError, endpoint::Endpoint};
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::{
    answer,
    memory::{Belief, Freshness, Memory},
    resolver::{Answer, Ask, Family, Resolver, Service},
    search::Search,
};
use crate::{
    clock,
    watch::{self, Session, Source},
};

/// How many targets of SRV records are asked for at the same time.
const TARGETS_AT_ONCE: usize = 16;

/// How many targets of SRV records are asked for again at most, in a second, and at once after a
/// calm.
const TARGETS_A_SECOND: f64 = 16.0;
const TARGETS_AGAIN_AT_ONCE: f64 = 48.0;

/// The least fraction of a time to live after which an answer is asked for again.
const LEAST_PART: f64 = 0.7;

/// How long a set is used in which a part is missing or only remembered.
const TTL_OF_A_PART: Duration = Duration::from_secs(5);

/// The name does not exist or has no addresses; two answers have said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name does not exist or has no addresses")]
#[non_exhaustive]
pub struct NoSuchName;

/// A server says that the name does not exist or has no addresses; it is asked once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("one answer says that the name does not exist or has no addresses")]
#[non_exhaustive]
pub struct NotConfirmed;

#[derive(Clone, Debug)]
pub(super) enum Question {
    Host { host: Arc<str>, port: u16 },
    Service { name: Arc<str> },
}

#[derive(Clone, Debug)]
pub(super) struct DnsSource<R> {
    question: Question,
    pub(super) resolver: R,
    pub(super) ttl_bounds: (Duration, Duration),
    pub(super) max_stale: Duration,
    /// For each full name that the service's name may stand for.
    services: HashMap<Arc<str>, Memory<Service>>,
    /// For each full name that the host may stand for, or each target in the last SRV answer.
    hosts: HashMap<(Arc<str>, bool), Memory<IpAddr>>,
    /// When each target was asked for last.
    asked: HashMap<Arc<str>, Instant>,
    /// How many targets may be asked for again, as a token bucket.
    again: Option<(f64, Instant)>,
    /// The full name that counted last.
    known: Option<Arc<str>>,
    /// An endpoint cannot be reached, so targets are asked for before their time.
    is_refresh: bool,
}

/// The result of all answers together.
enum Resolved {
    /// This is the set, for that long.
    Set(Vec<Endpoint>, Duration),
    /// There may be no endpoints; to be confirmed after that long.
    Denied(Duration),
}

impl<R: Resolver> DnsSource<R> {
    pub(super) fn new(question: Question, resolver: R) -> Self {
        Self {
            question,
            resolver,
            ttl_bounds: (Duration::from_secs(1), Duration::from_secs(30)),
            max_stale: Duration::from_secs(300),
            services: HashMap::new(),
            hosts: HashMap::new(),
            asked: HashMap::new(),
            again: None,
            known: None,
            is_refresh: false,
        }
    }

    async fn resolve(&mut self, ask: &R::Session) -> Result<Resolved, BoxError> {
        match self.question.clone() {
            Question::Host { host, port } => {
                let belief = self.host(ask, &host).await;
                settle(belief, |addresses| answer::host(addresses, port))
            }
            Question::Service { name } => {
                let believed = self.service(ask, &name).await;
                let Freshness::Fresh(ttl) = believed.fresh else {
                    return settle(believed, |_| vec![]);
                };
                self.targets(ask, believed.records, ttl).await
            }
        }
    }

    /// Asks the full names of a host, one after the other, for both families.
    async fn host(&mut self, ask: &R::Session, host: &str) -> Belief<IpAddr> {
        let mut search = Search::new(self.known.clone());
        for name in ask.names(host) {
            let answers = both_families(ask, &name).await;
            if search.take(&name, self.believe(&name, answers)) {
                break;
            }
        }
        let (known, belief) = search.end();
        self.known = known;
        belief
    }

    /// Asks the full names of a service, one after the other.
    async fn service(&mut self, ask: &R::Session, service: &str) -> Belief<Service> {
        let mut search = Search::new(self.known.clone());
        for name in ask.names(service) {
            let answer = ask.services(&name).await.map(without_portless);
            let memory = self.services.entry(name.clone()).or_default();
            if search.take(&name, memory.believe(answer, clock::now(), self.max_stale)) {
                break;
            }
        }
        let (known, belief) = search.end();
        self.known = known;
        belief
    }

    /// Looks up the targets of SRV records. A target that fails costs only its own endpoints.
    async fn targets(
        &mut self,
        ask: &R::Session,
        mut services: Vec<Service>,
        mut ttl: Duration,
    ) -> Result<Resolved, BoxError> {
        // A target of `.` says that the service is not offered there (RFC 2782).
        services.retain(|service| &*service.target != ".");
        let mut hosts: Vec<_> = services.iter().map(|service| service.target.clone()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        self.hosts.retain(|(host, _), _| hosts.binary_search(host).is_ok());
        self.asked.retain(|host, _| hosts.binary_search(host).is_ok());
        let answers: Vec<_> = stream::iter(self.due(&hosts))
            .map(|host| async move { (host.clone(), both_families(ask, &host).await) })
            .buffer_unordered(TARGETS_AT_ONCE)
            .collect()
            .await;
        let now = clock::now();
        let mut beliefs = HashMap::new();
        for (host, answers) in answers {
            self.asked.insert(host.clone(), now);
            beliefs.insert(host.clone(), self.believe(&host, answers));
        }
        let mut trouble = None;
        let mut addresses = HashMap::new();
        for host in hosts {
            let age = self.asked.get(&host).map_or(Duration::ZERO, |asked_at| now - *asked_at);
            let belief = beliefs.remove(&host).unwrap_or_else(|| self.recall(&host));
            match belief.fresh {
                Freshness::Fresh(target_ttl) => ttl = ttl.min(target_ttl.saturating_sub(age)),
                other => trouble = Some(other),
            }
            addresses.insert(host, belief.records);
        }
        let found: Vec<_> = services
            .into_iter()
            .filter_map(|service| Some((service.clone(), addresses.get(&service.target)?.clone())))
            .collect();
        let endpoints = answer::services(found);
        match trouble {
            Some(trouble) if endpoints.is_empty() => {
                settle(Belief::<IpAddr> { records: vec![], fresh: trouble }, |_| vec![])
            }
            Some(_) => Ok(Resolved::Set(endpoints, ttl.min(TTL_OF_A_PART))),
            None => Ok(Resolved::Set(endpoints, ttl)),
        }
    }

    /// The targets to ask for: the new ones, and some of those with an expired answer.
    fn due(&mut self, hosts: &[Arc<str>]) -> Vec<Arc<str>> {
        let now = clock::now();
        let (mut asked, mut old) = (vec![], vec![]);
        for host in hosts {
            match self.asked.get(host).copied() {
                None => asked.push(host.clone()),
                Some(asked_at) if self.is_refresh || asked_at + self.lives(host) <= now => {
                    old.push((asked_at, host.clone()));
                }
                Some(_) => {}
            }
        }
        old.sort_unstable();
        let (left, since) = self.again.unwrap_or((TARGETS_AGAIN_AT_ONCE, now));
        let refilled = TARGETS_A_SECOND * (now - since).as_secs_f64();
        let left = (left + refilled).min(TARGETS_AGAIN_AT_ONCE);
        old.truncate(left as usize);
        self.again = Some((left - old.len() as f64, now));
        asked.extend(old.into_iter().map(|(_, host)| host));
        asked
    }

    /// How long an answer about a target is used before the target is asked for again.
    fn lives(&mut self, host: &Arc<str>) -> Duration {
        let (min, max) = self.ttl_bounds;
        match self.recall(host).fresh {
            Freshness::Fresh(ttl) => ttl.clamp(min, max).mul_f64(LEAST_PART),
            Freshness::Denied(ttl) => ttl.clamp(min, max),
            Freshness::Failed(_) => Duration::ZERO,
        }
    }

    /// Combines the answers for both families; the last good answer stands in for a family that
    /// fails.
    fn believe(
        &mut self,
        host: &Arc<str>,
        answers: [Result<Answer<IpAddr>, BoxError>; 2],
    ) -> Belief<IpAddr> {
        let (now, max_stale) = (clock::now(), self.max_stale);
        let [v4, v6] = answers;
        let v4 = self.memory(host, false).believe(v4, now, max_stale);
        let v6 = self.memory(host, true).believe(v6, now, max_stale);
        both(v4, v6)
    }

    /// What is believed about a target while it is not asked for.
    fn recall(&mut self, host: &Arc<str>) -> Belief<IpAddr> {
        let (now, max_stale) = (clock::now(), self.max_stale);
        let v4 = self.memory(host, false).recall(now, max_stale);
        let v6 = self.memory(host, true).recall(now, max_stale);
        both(v4, v6)
    }

    fn memory(&mut self, host: &Arc<str>, is_v6: bool) -> &mut Memory<IpAddr> {
        self.hosts.entry((host.clone(), is_v6)).or_default()
    }
}

/// Combines what is believed about a host in each family.
fn both(v4: Belief<IpAddr>, v6: Belief<IpAddr>) -> Belief<IpAddr> {
    use Freshness::{Denied, Failed, Fresh};

    let (has_v4, has_v6) = (!v4.records.is_empty(), !v6.records.is_empty());
    let records = [v4.records, v6.records].concat();
    let fresh = match (v4.fresh, v6.fresh) {
        // For a host of one family, every answer denies the other.
        (Fresh(ttl), Denied(_)) if has_v4 => Fresh(ttl),
        (Denied(_), Fresh(ttl)) if has_v6 => Fresh(ttl),
        (Fresh(a), Fresh(b)) if has_v4 == has_v6 => Fresh(a.min(b)),
        (Fresh(ttl), Fresh(_)) if has_v4 => Fresh(ttl),
        (Fresh(_), Fresh(ttl)) => Fresh(ttl),
        (Fresh(ttl), Failed(_)) if has_v4 => Fresh(ttl),
        (Failed(_), Fresh(ttl)) if has_v6 => Fresh(ttl),
        (Failed(error), _) | (_, Failed(error)) => Failed(error),
        (Denied(a), Denied(b)) => Denied(a.min(b)),
        (Denied(ttl), Fresh(_)) | (Fresh(_), Denied(ttl)) => Denied(ttl),
    };
    Belief { records, fresh }
}

impl<R: Resolver> Source for DnsSource<R> {
    fn origin(&self) -> String {
        match &self.question {
            Question::Host { host, port } => format!("dns {host}:{port}"),
            Question::Service { name } => format!("dns {name}"),
        }
    }

    async fn session(&mut self, session: &mut Session) -> Result<(), BoxError> {
        let ask = self.resolver.session()?;
        let (min, max) = self.ttl_bounds;
        loop {
            let delay = match self.resolve(&ask).await? {
                Resolved::Set(endpoints, ttl) => {
                    let trouble = endpoints.is_empty().then(|| NoSuchName.into());
                    let whole = watch::Answer::new(endpoints).ordered().certain();
                    session.answer(whole.trouble(trouble));
                    ttl.clamp(min, max).mul_f64(LEAST_PART + 0.1 * session.rng().unit())
                }
                Resolved::Denied(ttl) => {
                    session.fail(NotConfirmed);
                    // In full: asked sooner, the same cached answer would confirm itself.
                    ttl.clamp(min, max)
                }
            };
            let due = clock::now() + delay.max(min);
            session.wait(delay.max(min)).await;
            self.is_refresh = clock::now() < due;
        }
    }
}

async fn both_families<A: Ask>(ask: &A, host: &str) -> [Result<Answer<IpAddr>, BoxError>; 2] {
    let (v4, v6) = (ask.addresses(host, Family::V4), ask.addresses(host, Family::V6));
    futures_util::future::join(v4, v6).await.into()
}

/// Drops records with port 0, which cannot be connected to, and keeps the others.
fn without_portless(mut answer: Answer<Service>) -> Answer<Service> {
    answer.records.retain(|service| service.port != 0 || &*service.target == ".");
    answer
}

fn settle<T>(
    belief: Belief<T>,
    endpoints: impl FnOnce(Vec<T>) -> Vec<Endpoint>,
) -> Result<Resolved, BoxError> {
    match belief.fresh {
        Freshness::Fresh(ttl) => Ok(Resolved::Set(endpoints(belief.records), ttl)),
        Freshness::Denied(ttl) => Ok(Resolved::Denied(ttl)),
        Freshness::Failed(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
