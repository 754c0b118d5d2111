//! Registration at an agent of Consul.
//!
//! The entry is a service of the agent with a TTL check that is kept by heartbeats, beside the checks that
//! it names. When the TTL is over the service is critical, and callers leave it out; after
//! [`deregister_critical_after`](ConsulRegistry::deregister_critical_after), and Consul's round of up to
//! 30 s, the agent forgets it.
//!
//! **Which agent.** A service belongs to the agent of its machine: only that one sees the machine die. Where
//! several are named, the next has the entry after the first heartbeat that failed, and the entry at the first
//! runs out by its TTL. Leaving removes both. Where an agent that has it does not answer, the entry is removed from the
//! catalogue at once, and leaving is tried until that agent has answered or nothing listens there, or the
//! [`timeout`](super::Registration::timeout) is over: it would enter it again.
//!
//! **Connections.** A registration holds none between its heartbeats, so that hundreds in one process do not
//! use up the 200 that an agent takes from one address.
//!
//! **Maintenance and weight 0** are the agent's maintenance mode for the service. What a service sets itself ends
//! with it, also if it dies and another enters under the same id. Maintenance that is set by hand survives
//! heartbeats, changes of the entry and restarts.
//!
//! **What is looked at.** Each heartbeat looks at the agent's entry, and each third one also at the catalogue,
//! which callers read: one question about two rows, of any server. An entry that is gone from there, as after
//! a snapshot was restored, or says something else, is entered again, with a number in its `Meta` and in the notes
//! of its checks that makes it another: the agent would not push what it believes to be there. So is one without an owner, as it is
//! after it was edited by hand, and one whose owner has not sent a heartbeat for its TTL.
//!
//! **Ids and names** are part of paths that Consul cleans: an id or a name with an empty segment, with `.` or
//! `..` as one, or with control characters would enter and never be found, and is refused
//! ([`Registry::validate`]).
//!
//! **For go-micro v2**, [`go_micro`](ConsulRegistry::go_micro) writes its tags; go-kit reads ordinary services.
//!
//! **Rights** that a token needs: `service "NAME" { policy = "write" }`. To look at the catalogue takes
//! `node_prefix "" { policy = "read" }` as well; without it, that is left out.

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

/// The key in `Meta` that tells which process has made an entry.
const OWNER: &str = "evenkeel-owner";

/// The key in `Meta` that tells how often an entry that was lost has been entered again.
const ROUND: &str = "evenkeel-round";

/// Of so many heartbeats, one looks at the catalogue.
const LOOK_EVERY: u32 = 3;

/// How long the catalogue may take to answer: a heartbeat does not fail with it.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// Enters services at an agent of Consul. See the [module docs](self).
///
/// ```
/// use std::time::Duration;
/// use evenkeel_discovery::{consul::Agents, register::ConsulRegistry};
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
    /// How many agents have been asked, one after the other, counted on beyond the last.
    asked: usize,
    /// The agent that is asked; none while an attempt is under way, and after one that failed.
    at: Option<At>,
    /// Which agent has the entry as it is wanted.
    entered_at: Option<usize>,
    /// Which agents may have an entry, since an attempt there has begun and none has removed it.
    may_have: BTreeSet<usize>,
    /// How often the entry was lost. It is part of the entry: an agent of Consul 1.11 and later that is told
    /// again what it knows pushes nothing, although the catalogue may have lost it.
    round: u32,
}

/// An agent, and what is known of the entry there.
#[derive(Debug)]
struct At {
    agent: Agent,
    /// Whether what a predecessor left has been looked at, and removed.
    is_clean: bool,
    /// Whether the service has set the maintenance mode itself.
    is_drained: bool,
    /// The name of its node.
    node: Option<String>,
    heartbeats: u32,
    /// Whether the catalogue has had the entry. Only what was there can be lost: without the right to read
    /// nodes, nothing is there.
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

    /// Sets how long a service is critical before the agent forgets it. Default 1 min, Consul's least.
    #[must_use]
    pub fn deregister_critical_after(mut self, after: Duration) -> Self {
        self.deregister_critical_after = after;
        self
    }

    /// Writes entries for go-micro v2, which reads metadata and version from tags. Default it does not.
    ///
    /// Say what the service speaks in the entry's metadata, under `protocol`: `grpc` for a gRPC server.
    /// Methods are not entered; who selects nodes by a method finds none here.
    #[must_use]
    pub fn go_micro(mut self) -> Self {
        self.is_micro = true;
        self
    }

    /// Makes an attempt at one agent; after one that fails or is given up, the next is asked.
    fn at(&mut self) -> Result<At, BoxError> {
        match self.at.take() {
            Some(at) => Ok(at),
            None => {
                self.asked += 1;
                Ok(At::new(self.agents.agent(self.asked - 1)?))
            }
        }
    }

    /// Which agent is asked.
    fn place(&self) -> usize {
        self.asked.saturating_sub(1) % self.agents.servers.len()
    }

    /// Ends an attempt that succeeded.
    fn stay(&mut self, at: At) {
        at.agent.hang_up();
        self.at = Some(at);
    }

    async fn keep_at(&self, at: &mut At, entry: &Entry, ttl: Duration) -> Result<Kept, BoxError> {
        match standing::owner(&at.agent, entry).await?.as_deref() {
            Some(owner) if *owner == self.owner && self.entered_at == Some(self.place()) => {}
            // It went to another agent and is back: what stands here may be old.
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
            // That the check is not there is 404, and 500 before Consul 1.12.
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
        // An entry that was there already has the status that its check had.
        pass(&self.agent, entry).await
    }

    async fn drain(&mut self, entry: &Entry) -> Result<(), BoxError> {
        let is_drained = entry.effective_weight() == 0;
        if !is_drained && !self.is_drained {
            return Ok(());
        }
        // What was set by hand meanwhile stays.
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

    /// Looks whether the catalogue still has the entry; true as well if that cannot be told.
    async fn look(&mut self, entry: &Entry, service: &Value) -> bool {
        let Some(node) = &self.node else { return true };
        let look = standing::is_in_catalogue(&self.agent, node, entry, service);
        let Ok(Some(is_there)) = tokio::time::timeout(LOOK_MAX, look).await else { return true };
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
        let mut at = self.at()?;
        // One that is given up may succeed over there.
        self.may_have.insert(self.place());
        at.enter(entry, &service).await?;
        self.entered_at = Some(self.place());
        self.stay(at);
        Ok(())
    }

    async fn keep(&mut self, entry: &Entry, ttl: Duration) -> Result<Kept, BoxError> {
        let mut at = self.at()?;
        let kept = self.keep_at(&mut at, entry, ttl).await?;
        if kept == Kept::Lost {
            self.round = self.round.wrapping_add(1);
            // What is there now is to be looked at again.
            at = At { node: at.node.take(), ..At::new(at.agent) };
        }
        self.stay(at);
        Ok(kept)
    }

    async fn leave(&mut self, entry: &Entry) -> Result<(), BoxError> {
        let at = self.at()?;
        standing::remove(&at.agent, entry, &self.owner).await?;
        self.may_have.remove(&self.place());
        // An agent that is slow, or has no server, may have left it in the catalogue.
        standing::remove_from_catalogue(&at.agent, entry, &self.owner).await?;
        // It would put it there again, and is believed to be rid of it when it says so or is gone.
        for place in self.may_have.clone() {
            let agent = self.agents.agent(place)?;
            match standing::remove(&agent, entry, &self.owner).await {
                Err(error) if !is_gone(&error) => return Err(error),
                _ => self.may_have.remove(&place),
            };
        }
        self.stay(at);
        Ok(())
    }
}

/// Why `text` would not be found as part of a path, which Consul cleans before it looks.
fn unfindable(text: &str) -> Option<&'static str> {
    if text.chars().any(|c| c.is_control() || (c.is_whitespace() && c != ' ')) {
        Some("a control character in an id or a name is not found in Consul")
    } else if text.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        Some("an id or a name with an empty segment, `.` or `..` is not found in Consul")
    } else {
        None
    }
}

/// Whether the agent would take a question about this id for another one.
fn is_path_of_agent(id: &str) -> bool {
    id == "register" || id.starts_with("deregister/") || id.starts_with("maintenance/")
}

/// One heartbeat.
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
    fn what_could_never_be_found_or_removed_is_refused() {
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
