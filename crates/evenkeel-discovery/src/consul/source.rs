//! Asks one agent after the other about a service, again and again.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use evenkeel_core::{BoxError, backoff::Backoff, endpoint::Endpoint};
use tokio::time::Instant;

use super::{
    agent::{Agent, Answer, refused_with},
    agents::Agents,
    answer::{self, Found, Reading},
    error::NotPermitted,
    index::{Index, Moved},
    query::Query,
};
use crate::{
    clock,
    doubt::{AWAY, Doubt},
    error::NotConfirmed,
    pace::Pace,
    watch::{Session, Source},
};

/// How long an agent that holds an answer back may be silent before it has to give a sign of life.
const QUIET: Duration = Duration::from_secs(5);

/// The least and the greatest rest between two lists that are asked for because an endpoint cannot
/// be reached. A healthy query would have reported its end.
const REFRESH: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

#[derive(Clone, Debug)]
pub(super) struct ConsulSource {
    pub(super) service: Arc<str>,
    pub(super) agents: Agents,
    pub(super) query: Query,
    pub(super) reading: Reading,
    pub(super) wait: Duration,
    pub(super) hold: Duration,
    /// Which agent is asked; starts over after the last.
    asked: usize,
    index: Index,
    doubt: Doubt,
    /// The last set that was reported; none before the first answer.
    told: Option<Vec<Endpoint>>,
    /// The nodes of the last rows.
    nodes: Vec<String>,
    /// A hash of the last answer that was read.
    read: Option<u64>,
    /// How many lists since the last news were asked for because an endpoint cannot be reached, and
    /// when the next may be.
    refreshed: (u32, Option<Instant>),
}

impl ConsulSource {
    pub(super) fn new(service: Arc<str>, agents: Agents) -> Self {
        let reading = Reading {
            address: answer::AddressOf::Service,
            zone_key: "zone".into(),
            warnings: true,
            is_ordered: false,
            is_micro: false,
        };
        Self {
            service,
            agents,
            query: Query::default(),
            reading,
            wait: Duration::from_secs(50),
            hold: Duration::from_secs(5),
            asked: 0,
            index: Index::default(),
            doubt: Doubt::default(),
            told: None,
            nodes: vec![],
            read: None,
            refreshed: (0, None),
        }
    }

    /// Follows one agent until it fails.
    async fn follow(&mut self, session: &mut Session) -> Result<(), BoxError> {
        let agent = self.agents.agent(self.asked);
        let mut pace = Pace::new(clock::now());
        self.index.reset();
        loop {
            tokio::time::sleep(pace.delay(clock::now())).await;
            let asked_at = clock::now();
            let wait = self.wait_from(asked_at);
            let blocks_on = self.index.blocks_on().map(|index| (index, wait));
            let path = self.query.path(&self.service, blocks_on);
            let wait = blocks_on.map_or(Duration::ZERO, |(_, wait)| wait);
            let Some(answer) = self.ask(session, &agent, &path, wait).await? else {
                self.index.reset();
                continue;
            };
            let has_waited = wait / 2 <= clock::now() - asked_at && blocks_on.is_some();
            let is_news = self.take(session, &agent, &answer).await?;
            pace.answered(is_news || has_waited);
        }
    }

    /// Asks, and meanwhile checks that an agent that holds the answer back is alive. None if the
    /// list is to be asked for at once.
    async fn ask(
        &mut self,
        session: &mut Session,
        agent: &Agent,
        path: &str,
        wait: Duration,
    ) -> Result<Option<Answer>, BoxError> {
        let mut asked = pin!(agent.get(path, wait));
        if wait.is_zero() {
            return asked.await.map(Some);
        }
        let mut sign = pin!(agent.sign_of_life(QUIET));
        loop {
            tokio::select! {
                answer = &mut asked => return answer.map(Some),
                alive = &mut sign => {
                    alive?;
                    sign.set(agent.sign_of_life(QUIET));
                }
                () = refresh_wanted(self.refreshed.1, session) => {
                    self.refresh(session, clock::now());
                    return Ok(None);
                }
            }
        }
    }

    /// Records that the list is asked for because an endpoint cannot be reached, and sets the rest
    /// before the next time.
    fn refresh(&mut self, session: &mut Session, now: Instant) {
        let (times, rests_until) = &mut self.refreshed;
        let (min, max) = REFRESH;
        *rests_until = Some(now + Backoff::new(min, max).delay(*times, session.rng()));
        *times = times.saturating_add(1);
    }

    /// How long the agent may hold an answer back: not beyond the end of a doubt.
    fn wait_from(&self, now: Instant) -> Duration {
        match self.doubt.ends_at(self.hold) {
            Some(end) => self.wait.min(end.saturating_duration_since(now)),
            None => self.wait,
        }
        .max(Duration::from_millis(1))
    }

    /// Takes an answer; true if it brought news.
    async fn take(
        &mut self,
        session: &mut Session,
        agent: &Agent,
        answer: &Answer,
    ) -> Result<bool, BoxError> {
        let hash = hash_of(&answer.body);
        let is_same = self.read.take() == Some(hash) && !self.index.is_behind(answer.index());
        if is_same && self.is_settled(session) {
            self.index.take(answer.index());
            self.read = Some(hash);
            session.confirm();
            return Ok(false);
        }
        let found = answer::read(&answer.body, &self.reading)?;
        if found.rows == 0 && (answer.is_filtered() || !self.may_read(agent).await) {
            return Err(NotPermitted { service: self.service.clone() }.into());
        }
        let moved = self.index.take(answer.index());
        let Found { endpoints, nodes, skipped, .. } = found;
        if let Some((reason, count)) = skipped {
            let origin = self.origin();
            tracing::debug!(origin, reason, count, "entries that cannot be used are left out");
        }
        if !nodes.is_empty() {
            self.nodes = nodes;
        }
        let endpoints = share(endpoints, self.told.as_deref().unwrap_or_default());
        if AWAY < session.lost_for() {
            self.doubt.was_away(clock::now());
        }
        let verdict = self.doubt.take(endpoints, moved == Moved::Back, clock::now(), self.hold);
        self.read = Some(hash);
        let is_news = self.told.as_ref() != Some(&verdict.endpoints);
        if is_news {
            self.refreshed = (0, None);
            self.told = Some(verdict.endpoints.clone());
        }
        match verdict.kept {
            None => session.set(verdict.endpoints),
            Some((missing, _)) => {
                if is_news || session.known() == 0 {
                    session.set(verdict.endpoints);
                }
                session.fail(NotConfirmed { missing });
            }
        }
        Ok(is_news || moved == Moved::Back)
    }

    /// Whether the whole last answer has been reported, so that an identical one need not be read.
    /// Most answers are identical, at the end of a wait.
    fn is_settled(&self, session: &Session) -> bool {
        let told = self.told.as_ref().map_or(0, Vec::len);
        let is_doubted = self.doubt.ends_at(self.hold).is_some();
        session.is_well() && !is_doubted && 0 < told && told == session.known()
    }

    /// Whether the token can see the service at all. Without the right, an agent answers with an
    /// empty list, and before 1.11 it does not say why. An agent that cannot tell is believed.
    async fn may_read(&self, agent: &Agent) -> bool {
        let right = |resource: &str, segment: &str| serde_json::json!({ "Resource": resource, "Access": "read", "Segment": segment });
        let mut rights = vec![right("service", &self.service)];
        rights.extend(self.nodes.iter().map(|node| right("node", node)));
        let body = Bytes::from(serde_json::Value::from(rights).to_string());
        match agent.post("/v1/internal/acl/authorize", body).await {
            Ok(answer) => !is_denied(&answer.body),
            Err(error) => refused_with(&error) != Some(403),
        }
    }
}

/// Waits until fresh news is asked for, but not before `not_before`. A request during the rest
/// waits for its end.
async fn refresh_wanted(not_before: Option<Instant>, session: &mut Session) {
    if let Some(instant) = not_before {
        tokio::time::sleep_until(instant).await;
    }
    session.refresh_wanted().await;
}

fn hash_of(body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    hasher.finish()
}

/// Replaces endpoints with the equal ones in `known`, so that their contents are shared and compare
/// fast. Both are in the order of their addresses; an endpoint out of order is left as it is.
fn share(mut endpoints: Vec<Endpoint>, known: &[Endpoint]) -> Vec<Endpoint> {
    let mut known = known.iter().peekable();
    for endpoint in &mut endpoints {
        while known.next_if(|other| other.address < endpoint.address).is_some() {}
        if let Some(same) = known.next_if(|other| *other == endpoint) {
            endpoint.clone_from(same);
        }
    }
    endpoints
}

/// Whether the service, or every one of the nodes, is denied.
fn is_denied(body: &[u8]) -> bool {
    let rights: Vec<serde_json::Value> = serde_json::from_slice(body).unwrap_or_default();
    let mut allowed = rights.iter().map(|right| right["Allow"] != false);
    let service = allowed.next().unwrap_or(true);
    let nodes: Vec<bool> = allowed.collect();
    !service || (!nodes.is_empty() && nodes.iter().all(|allowed| !allowed))
}

impl Source for ConsulSource {
    fn origin(&self) -> String {
        format!("consul service {}", self.service)
    }

    async fn session(&mut self, session: &mut Session) -> Result<(), BoxError> {
        let mut failed: BoxError = "no agent is named".into();
        for _ in 0..self.agents.servers.len() {
            match self.follow(session).await {
                Ok(()) => return Ok(()),
                Err(error) => failed = error,
            }
            if 1 < self.agents.servers.len() {
                let agent = self.agents.servers[self.asked % self.agents.servers.len()].to_string();
                tracing::debug!(agent, error = %failed, "the next agent is asked");
                self.asked += 1;
                // Another agent's state may be older without having been rebuilt.
                self.index.forget();
            }
        }
        Err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_not_changed_is_kept_once() {
        let endpoint = |port: u16, version: &str| {
            let address: evenkeel_core::endpoint::Address = format!("a:{port}").parse().unwrap();
            Endpoint::new(address).metadata("version", version)
        };
        let known = [endpoint(1, "1"), endpoint(2, "1"), endpoint(4, "1")];

        let shared = share(
            vec![endpoint(1, "1"), endpoint(2, "2"), endpoint(3, "1"), endpoint(4, "1")],
            &known,
        );

        let is_same = |a: &Endpoint, b: &Endpoint| Arc::ptr_eq(&a.metadata, &b.metadata);
        assert!(is_same(&shared[0], &known[0]) && is_same(&shared[3], &known[2]));
        assert_eq!(shared[1].metadata["version"], "2");
        assert_eq!(shared[2], endpoint(3, "1"));
    }

    #[test]
    fn a_service_or_all_its_nodes_can_be_denied() {
        assert!(!is_denied(br#"[{"Allow":true},{"Allow":false},{"Allow":true}]"#));
        assert!(is_denied(br#"[{"Allow":true},{"Allow":false}]"#));
        assert!(is_denied(br#"[{"Allow":false}]"#));
        assert!(!is_denied(br#"[{"Allow":true}]"#));
        assert!(!is_denied(b"garbage"));
    }
}
