//! Asks one agent after the other about a service, again and again.

use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use evenkeel_core::BoxError;
use tokio::time::Instant;

use super::{
    agent::{Agent, Answer, refusal_status},
    agents::Agents,
    answer::{self, Found, Reading, hash_of},
    error::NotPermitted,
    index::Index,
    query::Query,
};
use crate::{
    checks::Checks,
    clock,
    pace::Pace,
    watch::{self, Session, Source},
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
    /// Which agent is asked; starts over after the last.
    asked: usize,
    index: Index,
    /// The nodes of the last rows.
    nodes: Vec<String>,
    /// The IDs of the nodes of the last rows.
    ids: HashMap<u64, u64>,
    /// A hash of the last answer that was read.
    read: Option<u64>,
    /// The lists that are asked for because an endpoint cannot be reached.
    checks: Checks,
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
            asked: 0,
            index: Index::default(),
            nodes: vec![],
            ids: HashMap::new(),
            read: None,
            checks: Checks::new(REFRESH.0, REFRESH.1),
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
            let wait = self.wait_from(asked_at, session);
            let blocks_on = self.index.blocks_on().map(|index| (index, wait));
            let path = self.query.path(&self.service, blocks_on);
            let wait = blocks_on.map_or(Duration::ZERO, |(_, wait)| wait);
            let Some(answer) = self.ask(session, &agent, &path, wait).await? else {
                self.index.reset();
                continue;
            };
            let has_waited = wait / 2 <= clock::now() - asked_at && blocks_on.is_some();
            let is_news = self.take(session, &agent, &answer).await?;
            pace.record_answer(is_news || has_waited);
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
                () = self.checks.wanted(session) => return Ok(None),
            }
        }
    }

    /// How long the agent may hold an answer back: not beyond the end of a doubt.
    fn wait_from(&self, now: Instant, session: &Session) -> Duration {
        let doubted_for = session.doubted_until().map(|end| end.saturating_duration_since(now));
        self.wait.min(doubted_for.unwrap_or(self.wait)).max(Duration::from_millis(1))
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
        // Most answers are identical, at the end of a wait.
        if is_same && session.confirm() {
            self.index.take(answer.index());
            self.read = Some(hash);
            return Ok(false);
        }
        let found = answer::read(&answer.body, &self.reading)?;
        if found.rows == 0 && (answer.is_filtered() || !self.may_read(agent).await) {
            return Err(NotPermitted { service: self.service.clone() }.into());
        }
        let Found { endpoints, nodes, ids, skipped, .. } = found;
        // An agent that was filled again soon may have an index as great as before.
        let has_lost_data = |(node, id)| self.ids.get(node).is_some_and(|known| known != id);
        let is_rebuilt = self.index.take(answer.index()) || ids.iter().any(has_lost_data);
        if let Some((reason, count)) = skipped {
            let origin = self.origin();
            tracing::debug!(origin, reason, count, "entries that cannot be used are left out");
        }
        if !nodes.is_empty() {
            (self.nodes, self.ids) = (nodes, ids);
        }
        let whole = watch::Answer::new(endpoints).rebuilt(is_rebuilt).ordered();
        let is_news = session.answer(whole);
        self.read = Some(hash);
        if is_news {
            self.checks.forget();
        }
        Ok(is_news || is_rebuilt)
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
            Err(error) => refusal_status(&error) != Some(403),
        }
    }
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
    fn access_to_a_service_or_to_all_its_nodes_can_be_denied() {
        assert!(!is_denied(br#"[{"Allow":true},{"Allow":false},{"Allow":true}]"#));
        assert!(is_denied(br#"[{"Allow":true},{"Allow":false}]"#));
        assert!(is_denied(br#"[{"Allow":false}]"#));
        assert!(!is_denied(br#"[{"Allow":true}]"#));
        assert!(!is_denied(b"garbage"));
    }
}
