//! Registration at an agent of Consul.
//!
//! The entry is a service of the agent with a TTL check, which heartbeats keep passing, and the
//! checks that the entry names. When the TTL is over, the service is critical and callers leave it
//! out. After [`deregister_critical_after`](ConsulRegistry::deregister_critical_after), and
//! Consul's round of up to 30 s, the agent removes it.
//!
//! **Which agent.** A service belongs to the agent of its machine: only that agent sees the machine
//! die. Where several agents are named, the next gets the entry after the first failed heartbeat,
//! and the entry at the first expires by its TTL. Leaving removes both. An agent that has the entry
//! but does not answer would enter it again in the catalogue. So the entry is removed from the
//! catalogue at once, and leaving is tried until that agent has answered or nothing listens there,
//! or the [`timeout`](super::Registration::timeout) is over.
//!
//! **Connections.** A registration holds no connection between its heartbeats, so that hundreds in
//! one process do not use up the 200 that an agent accepts from one address.
//!
//! **Maintenance and weight 0** use the agent's maintenance mode for the service. Maintenance that
//! a service sets itself ends with the service, also if it dies and another enters under the same
//! id. Maintenance that is set by hand survives heartbeats, changes of the entry and restarts.
//!
//! **What is checked.** Each heartbeat checks the agent's entry. Each third one also checks the
//! catalogue, which callers read: one question about two rows, to any server. An entry that is
//! missing there, as after a restored snapshot, or that differs, is entered again. It then has a
//! number in its `Meta` and in the notes of its checks that makes it differ from before, since the
//! agent would not push what it believes to be there. An entry without an owner, as after it was
//! edited by hand, is entered again too, and so is one whose owner has not sent a heartbeat for its
//! TTL.
//!
//! **Ids and names** are parts of paths, which Consul cleans. An id or a name with an empty
//! segment, with `.` or `..` as a segment, or with control characters could be entered but never
//! found. It is refused ([`Registry::validate`]).
//!
//! **For go-micro v2**, [`go_micro`](ConsulRegistry::go_micro) writes its tags; go-kit reads ordinary services.
//!
//! **Rights** that a token needs: `service "NAME" { policy = "write" }`. To check the catalogue
//! takes `node_prefix "" { policy = "read" }` as well; without it, that check is left out.

mod definition;
mod standing;

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use evenkeel_core::{BoxError, rng::Rng};
use serde_json::{Value, json};

use self::standing::Checks;
use super::{Entry, InvalidEntry, Kept, Registry};
use crate::consul::{
    Agents,
    agent::{Agent, encode, is_gone},
};

/// The key in `Meta` that identifies the process which made an entry.
const OWNER: &str = "evenkeel-owner";

/// The key in `Meta` that counts how often a lost entry has been entered again.
const ROUND: &str = "evenkeel-round";

/// One in this many heartbeats checks the catalogue.
const LOOK_EVERY: u32 = 3;

/// How long the catalogue may take to answer. A heartbeat does not fail with it.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// Enters services at an agent of Consul. See the [module docs](self).
///
/// ```
/// use std::time::Duration;
/// use evenkeel::discovery::{consul::Agents, register::ConsulRegistry};
///
/// let registry = ConsulRegistry::new(Agents::local())
///     .deregister_critical_after(Duration::from_secs(300));
/// # let _ = registry;
/// ```
#[derive(Debug)]
pub struct ConsulRegistry {
    agents: Agents,
    deregister_critical_after: Duration,
    /// Whether tags are written as go-micro does.
    is_micro: bool,
    owner: String,
    /// How many agents have been asked, one after the other; counted on after the last.
    asked: usize,
    /// The agent that is asked; none while an attempt is under way, and after one that failed.
    at: Option<At>,
    /// The agent that has the current entry.
    entered_at: Option<usize>,
    /// The agents that may have an entry: an attempt there has begun, and none has removed it
    /// since.
    may_have: BTreeSet<usize>,
    /// How often the entry was lost. The number is part of the entry: since Consul 1.11, an agent
    /// that gets an entry it already knows pushes nothing, although the catalogue may have lost it.
    round: u32,
}

/// An agent, and what is known about the entry there.
#[derive(Debug)]
struct At {
    agent: Agent,
    /// Whether leftovers of a predecessor have been looked for and removed.
    is_clean: bool,
    /// Whether the service has set the maintenance mode itself.
    is_drained: bool,
    /// The name of its node.
    node: Option<String>,
    heartbeats: u32,
    /// Whether the catalogue has had the entry. An entry that was never seen there cannot be lost:
    /// without the right to read nodes, no entry is visible.
    was_in_catalogue: bool,
}

impl ConsulRegistry {
    /// Enters services at the first of `agents` that answers.
    #[must_use]
    pub fn new(agents: Agents) -> Self {
        Self {
            agents,
            deregister_critical_after: Duration::from_secs(60),
            is_micro: false,
            owner: format!("{:016x}", Rng::from_entropy().below_u64(u64::MAX)),
            asked: 0,
            at: None,
            entered_at: None,
            may_have: BTreeSet::new(),
            round: 0,
        }
    }

    /// Sets how long a service is critical before the agent removes it. Default: 1 min, Consul's
    /// minimum.
    #[must_use]
    pub fn deregister_critical_after(mut self, after: Duration) -> Self {
        self.deregister_critical_after = after;
        self
    }

    /// Writes entries for go-micro v2, which reads metadata and version from tags. Default: off.
    ///
    /// Put the protocol of the service in the entry's metadata, under `protocol`: `grpc` for a gRPC
    /// server. Methods are not entered, so selecting nodes by a method finds none here.
    #[must_use]
    pub fn go_micro(mut self) -> Self {
        self.is_micro = true;
        self
    }

    /// Begins an attempt at one agent. After an attempt that fails or is dropped, the next agent is
    /// asked.
    fn at(&mut self) -> At {
        match self.at.take() {
            Some(at) => at,
            None => {
                self.asked += 1;
                At::new(self.agents.agent(self.asked - 1))
            }
        }
    }

    /// The index of the agent that is asked.
    fn place(&self) -> usize {
        self.asked.saturating_sub(1) % self.agents.servers.len()
    }

    /// Ends a successful attempt.
    fn stay(&mut self, at: At) {
        at.agent.hang_up();
        self.at = Some(at);
    }

    async fn keep_at(&self, at: &mut At, entry: &Entry, ttl: Duration) -> Result<Kept, BoxError> {
        match standing::owner(&at.agent, entry).await?.as_deref() {
            Some(owner) if *owner == self.owner && self.entered_at == Some(self.place()) => {}
            // The entry went to another agent and is back: the one here may be old.
            Some(owner) if *owner == self.owner => return Ok(Kept::Lost),
            // An entry without an owner may be taken over.
            None | Some("") => return Ok(Kept::Lost),
            Some(_) => {
                let is_run_out = Checks::read(&at.agent, entry).await?.is_run_out(entry);
                return Ok(if is_run_out { Kept::Lost } else { Kept::Taken });
            }
        }
        match pass(&at.agent, entry).await {
            Ok(()) => {}
            // A missing check is 404, and 500 before Consul 1.12.
            Err(error) if is_unknown_check(&error) => return Ok(Kept::Lost),
            Err(error) => return Err(error),
        }
        at.heartbeats = at.heartbeats.wrapping_add(1);
        if at.heartbeats % LOOK_EVERY == 1
            && !at.look(entry, &definition::service(self, entry, ttl)?).await
        {
            return Ok(Kept::Lost);
        }
        Ok(Kept::Alive)
    }
}

impl At {
    fn new(agent: Agent) -> Self {
        Self {
            agent,
            is_clean: false,
            is_drained: false,
            node: None,
            heartbeats: 0,
            was_in_catalogue: false,
        }
    }

    async fn enter(&mut self, entry: &Entry, service: &Value) -> Result<(), BoxError> {
        // Not with `replace-existing-checks`, which would end a maintenance that was set by hand.
        self.agent.put("/v1/agent/service/register", service.to_string().into()).await?;
        if !self.is_clean {
            let checks = Checks::read(&self.agent, entry).await?;
            checks.remove_strange(&self.agent, entry).await?;
            self.is_drained = checks.is_drained_by_itself();
            self.node = checks.node();
            self.is_clean = true;
        }
        self.drain(entry).await?;
        // The check of an existing entry keeps the status that it had.
        pass(&self.agent, entry).await
    }

    async fn drain(&mut self, entry: &Entry) -> Result<(), BoxError> {
        let is_drained = entry.effective_weight() == 0;
        if !is_drained && !self.is_drained {
            return Ok(());
        }
        // Maintenance that was set by hand meanwhile stays.
        let is_own = Checks::read(&self.agent, entry).await?.is_drained_by_itself();
        if is_drained || is_own {
            let path = format!(
                "/v1/agent/service/maintenance/{}?enable={is_drained}&reason={}",
                encode(&entry.id),
                encode(&standing::reason(entry))
            );
            self.agent.put(&path, Bytes::new()).await?;
        }
        self.is_drained = is_drained;
        Ok(())
    }

    /// Checks whether the catalogue still has the entry; true as well if that cannot be determined.
    async fn look(&mut self, entry: &Entry, service: &Value) -> bool {
        let Some(node) = &self.node else { return true };
        let look = standing::is_in_catalogue(&self.agent, node, entry, service);
        let Ok(Some(is_there)) = tokio::time::timeout(LOOK_TIMEOUT, look).await else {
            return true;
        };
        let is_lost = self.was_in_catalogue && !is_there;
        self.was_in_catalogue = is_there;
        !is_lost
    }
}

impl Registry for ConsulRegistry {
    fn origin(&self) -> String {
        self.agents.name(self.asked.saturating_sub(1))
    }

    fn validate(&self, entry: &Entry) -> Result<(), InvalidEntry> {
        entry.validate()?;
        match unfindable(&entry.id).or_else(|| unfindable(&entry.service)) {
            Some(reason) => Err(InvalidEntry::new(entry, reason)),
            None if is_path_of_agent(&entry.id) => {
                Err(InvalidEntry::new(entry, "the id is a path of the agent's own"))
            }
            None => Ok(()),
        }
    }

    async fn enter(&mut self, entry: &Entry, ttl: Duration) -> Result<(), BoxError> {
        let service = definition::service(self, entry, ttl)?;
        let mut at = self.at();
        // An attempt that is dropped may still succeed at the agent.
        self.may_have.insert(self.place());
        at.enter(entry, &service).await?;
        self.entered_at = Some(self.place());
        self.stay(at);
        Ok(())
    }

    async fn keep(&mut self, entry: &Entry, ttl: Duration) -> Result<Kept, BoxError> {
        let mut at = self.at();
        let kept = self.keep_at(&mut at, entry, ttl).await?;
        if kept == Kept::Lost {
            self.round = self.round.wrapping_add(1);
            // The state at the agent has to be checked again.
            at = At { node: at.node.take(), ..At::new(at.agent) };
        }
        self.stay(at);
        Ok(kept)
    }

    async fn leave(&mut self, entry: &Entry) -> Result<(), BoxError> {
        let at = self.at();
        standing::remove(&at.agent, entry, &self.owner).await?;
        self.may_have.remove(&self.place());
        // An agent that is slow, or has no server, may have left it in the catalogue.
        standing::remove_from_catalogue(&at.agent, entry, &self.owner).await?;
        // Such an agent would put it there again, until it answers that it has removed it or is
        // gone.
        for place in self.may_have.clone() {
            let agent = self.agents.agent(place);
            match standing::remove(&agent, entry, &self.owner).await {
                Err(error) if !is_gone(&error) => return Err(error),
                _ => self.may_have.remove(&place),
            };
        }
        self.stay(at);
        Ok(())
    }
}

/// Why `text` would not be found as part of a path, which Consul cleans before the lookup.
fn unfindable(text: &str) -> Option<&'static str> {
    if text.chars().any(|c| c.is_control() || (c.is_whitespace() && c != ' ')) {
        Some("a control character in an id or a name is not found in Consul")
    } else if text.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        Some("an id or a name with an empty segment, `.` or `..` is not found in Consul")
    } else {
        None
    }
}

/// Whether the agent would take a question about this id for another question.
fn is_path_of_agent(id: &str) -> bool {
    id == "register" || id.starts_with("deregister/") || id.starts_with("maintenance/")
}

/// Sends one heartbeat.
async fn pass(agent: &Agent, entry: &Entry) -> Result<(), BoxError> {
    let path = format!("/v1/agent/check/update/{}", encode(&definition::heartbeat_id(entry)));
    agent.put(&path, json!({ "Status": "passing" }).to_string().into()).await.map(drop)
}

fn is_unknown_check(error: &BoxError) -> bool {
    match error.downcast_ref::<crate::consul::AgentRefused>() {
        Some(refused) => {
            refused.status == 404
                || (refused.status == 500
                    && refused.message.contains("does not have associated TTL"))
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_could_never_be_found_or_removed_is_refused() {
        let registry = ConsulRegistry::new(Agents::local());
        let entry = |id: &str| Entry::new("web", "10.0.0.1:80".parse().unwrap()).id(id);
        for id in ["web-1", "a/b", "web 1", "é", "...", "a:b", "deregister", "..x"] {
            assert_eq!(registry.validate(&entry(id)), Ok(()), "{id}");
        }
        for id in [
            "",
            ".",
            "..",
            "/a",
            "a/",
            "a//b",
            "a/../b",
            "http://h:1",
            "a\n",
            "a\u{a0}b",
            "register",
            "maintenance/a",
            "deregister/a",
        ] {
            assert!(registry.validate(&entry(id)).is_err(), "{id:?} was taken");
        }
        let named = |name: &str| Entry::new(name, "10.0.0.1:80".parse().unwrap()).id("1");
        assert_eq!(registry.validate(&named("go.micro.api")), Ok(()));
        for name in ["", "..", "a//b", "http://h:1"] {
            assert!(registry.validate(&named(name)).is_err(), "{name:?} was taken");
        }
        let anywhere = Entry::new("web", "0.0.0.0:80".parse().unwrap());
        assert_eq!(registry.validate(&anywhere), Ok(()), "the agent puts its node's address there");
    }
}
