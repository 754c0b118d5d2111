//! Registration at an agent of Consul.
//!
//! The entry is a service of the agent with a TTL check that is kept by heartbeats, beside the checks that
//! it names. When the TTL is over the service is critical, and callers leave it out; after
//! [`deregister_critical_after`](ConsulRegistry::deregister_critical_after), and Consul's round of up to
//! 30 s, the agent forgets it.
//!
//! **Which agent.** A service belongs to the agent of its machine: only that one sees the machine die, and
//! only there can the service be deregistered. Where several are named, the next is used while one does
//! not answer, and the entry at the first runs out by its TTL.
//!
//! **Maintenance and weight 0** are the agent's maintenance mode for the service. Maintenance that somebody
//! sets by hand survives heartbeats and changes of the entry.
//!
//! **For go-micro v2**, [`go_micro`](ConsulRegistry::go_micro) writes its tags; go-kit reads ordinary services.
//!
//! **Rights** that a token needs: `service "NAME" { policy = "write" }`.

use std::time::Duration;

use bytes::Bytes;
use evenkeel_core::{BoxError, endpoint::Address, rng::Rng};
use serde_json::{Map, Value, json};

use super::{Check, Entry, Kept, Probe, Registry};
use crate::consul::{
    Agents,
    agent::{Agent, encode, refused_with},
    micro,
};

/// The key in `Meta` that tells which process has made an entry.
const OWNER: &str = "evenkeel-owner";

/// The reason of a maintenance that is there because the weight is 0.
const DRAINED: &str = "weight 0";

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
    /// The agent that has the entry, counted on beyond the last.
    chosen: usize,
    agent: Option<Agent>,
    owner: String,
    /// Whether what a predecessor left of its checks has been removed.
    is_clean: bool,
    /// Whether this has set the maintenance mode.
    is_drained: bool,
}

impl ConsulRegistry {
    /// Enters services at the first of `agents` that answers.
    #[must_use]
    pub fn new(agents: Agents) -> Self {
        Self {
            agents,
            deregister_critical_after: Duration::from_secs(60),
            is_micro: false,
            chosen: 0,
            agent: None,
            owner: format!("{:016x}", Rng::from_entropy().below_u64(u64::MAX)),
            is_clean: false,
            is_drained: false,
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

    fn agent(&mut self) -> Result<Agent, BoxError> {
        if self.agent.is_none() {
            self.agent = Some(self.agents.agent(self.chosen)?);
        }
        self.agent.clone().ok_or_else(|| "no agent is named".into())
    }

    async fn enter_at(&mut self, entry: &Entry, ttl: Duration) -> Result<(), BoxError> {
        let agent = self.agent()?;
        let body = self.definition(entry, ttl)?;
        // Not with `replace-existing-checks`, which would end a maintenance that somebody set by hand.
        agent.put("/v1/agent/service/register", text(&body)).await?;
        if !self.is_clean {
            remove_strange_checks(&agent, entry).await?;
            self.is_clean = true;
        }
        self.drain(&agent, entry).await?;
        // An entry that was there already has the status that its check had.
        agent.put(&update(entry), text(&json!({ "Status": "passing" }))).await?;
        Ok(())
    }

    async fn drain(&mut self, agent: &Agent, entry: &Entry) -> Result<(), BoxError> {
        let is_drained = entry.effective_weight() == 0;
        if !is_drained && !self.is_drained {
            return Ok(());
        }
        let reason = entry.maintenance.as_deref().unwrap_or(DRAINED);
        let path = format!(
            "/v1/agent/service/maintenance/{}?enable={is_drained}&reason={}",
            encode(&entry.id),
            encode(reason)
        );
        agent.put(&path, Bytes::new()).await?;
        self.is_drained = is_drained;
        Ok(())
    }

    /// The service as Consul wants to have it described.
    fn definition(&self, entry: &Entry, ttl: Duration) -> Result<Value, BoxError> {
        let tags = if self.is_micro {
            let mut metadata = entry.all_metadata();
            let version = metadata.remove("version").unwrap_or_else(|| "latest".into());
            micro::write(&metadata, &version, &entry.tags)?
        } else {
            entry.tags.clone()
        };
        let mut metadata = entry.all_metadata();
        metadata.insert(OWNER.to_owned(), self.owner.clone());
        let after = seconds(self.deregister_critical_after);
        let heartbeat = json!({ "CheckID": check_id(entry), "Name": "heartbeat", "TTL": seconds(ttl),
            "Status": "passing", "DeregisterCriticalServiceAfter": after });
        let others =
            entry.checks.iter().enumerate().map(|(number, check)| probe(entry, number, check));
        let mut definition = json!({
            "ID": entry.id, "Name": &*entry.service, "Tags": tags, "Meta": metadata,
            "Weights": { "Passing": entry.weight.clamp(1, 65_535), "Warning": 1 },
            "Checks": std::iter::once(heartbeat).chain(others).collect::<Vec<_>>(),
        });
        let place = match &entry.address {
            // The agent puts the address of its node in the place of none.
            Address::Socket(address) if address.ip().is_unspecified() => {
                json!({ "Port": address.port() })
            }
            Address::Socket(address) => {
                json!({ "Address": address.ip().to_string(), "Port": address.port() })
            }
            Address::Name { host, port } => json!({ "Address": &**host, "Port": port }),
            Address::Unix(path) => json!({ "SocketPath": path }),
            other => json!({ "Address": other.to_string() }),
        };
        if let (Some(all), Value::Object(place)) = (definition.as_object_mut(), place) {
            all.extend(place);
        }
        Ok(definition)
    }
}

impl Registry for ConsulRegistry {
    fn origin(&self) -> String {
        self.agents.name(self.chosen)
    }

    async fn enter(&mut self, entry: &Entry, ttl: Duration) -> Result<(), BoxError> {
        let Err(failed) = self.enter_at(entry, ttl).await else { return Ok(()) };
        self.choose_next();
        Err(failed)
    }

    async fn keep(&mut self, entry: &Entry, _: Duration) -> Result<Kept, BoxError> {
        let agent = self.agent()?;
        match owner(&agent, entry).await? {
            None => return Ok(self.lost()),
            Some(owner) if owner != self.owner => return Ok(Kept::Taken),
            Some(_) => {}
        }
        let passed = agent.put(&update(entry), text(&json!({ "Status": "passing" }))).await;
        match passed {
            Ok(_) => Ok(Kept::Alive),
            // That the check is not there is 404, and 500 before Consul 1.12.
            Err(error) if is_unknown_check(&error) => Ok(self.lost()),
            Err(error) => Err(error),
        }
    }

    async fn leave(&mut self, entry: &Entry) -> Result<(), BoxError> {
        let agent = self.agent()?;
        if owner(&agent, entry).await? != Some(self.owner.clone()) {
            return Ok(());
        }
        agent
            .put(&format!("/v1/agent/service/deregister/{}", encode(&entry.id)), Bytes::new())
            .await?;
        Ok(())
    }
}

impl ConsulRegistry {
    fn lost(&mut self) -> Kept {
        // A maintenance that this had set went with the entry.
        self.is_drained = false;
        Kept::Lost
    }

    fn choose_next(&mut self) {
        if 1 < self.agents.servers.len() {
            self.chosen += 1;
            self.agent = None;
            self.is_clean = false;
            self.is_drained = false;
        }
    }
}

/// Who has made the entry that is there; none if there is none.
async fn owner(agent: &Agent, entry: &Entry) -> Result<Option<String>, BoxError> {
    let found =
        agent.get(&format!("/v1/agent/service/{}", encode(&entry.id)), Duration::ZERO).await;
    match found {
        Ok(answer) => {
            let service: Value = serde_json::from_slice(&answer.body)?;
            Ok(Some(service["Meta"][OWNER].as_str().unwrap_or_default().to_owned()))
        }
        Err(error) if refused_with(&error) == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes checks that a predecessor had and this one has not. Nobody would pass them.
async fn remove_strange_checks(agent: &Agent, entry: &Entry) -> Result<(), BoxError> {
    let answer = agent.get("/v1/agent/checks", Duration::ZERO).await?;
    let checks: Map<String, Value> = serde_json::from_slice(&answer.body)?;
    let own: Vec<_> = (0..entry.checks.len()).map(|number| probe_id(entry, number)).collect();
    for (id, check) in checks {
        let is_own =
            own.contains(&id) || id == check_id(entry) || id.starts_with("_service_maintenance");
        if check["ServiceID"] == *entry.id && !is_own {
            agent.put(&format!("/v1/agent/check/deregister/{}", encode(&id)), Bytes::new()).await?;
        }
    }
    Ok(())
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

fn update(entry: &Entry) -> String {
    format!("/v1/agent/check/update/{}", encode(&check_id(entry)))
}

fn check_id(entry: &Entry) -> String {
    format!("{}:heartbeat", entry.id)
}

fn probe_id(entry: &Entry, number: usize) -> String {
    format!("{}:{number}", entry.id)
}

fn probe(entry: &Entry, number: usize, check: &Check) -> Value {
    let (kind, target) = match &check.probe {
        Probe::Http(url) => ("HTTP", url),
        Probe::Tcp(address) => ("TCP", address),
        Probe::Grpc(target) => ("GRPC", target),
    };
    // Passing until the first probe says otherwise: the service has said that it is ready.
    let mut definition = json!({ "CheckID": probe_id(entry, number), "Name": kind.to_lowercase(),
        kind: target, "Interval": seconds(check.interval), "Timeout": seconds(check.timeout),
        "Status": "passing" });
    if !check.headers.is_empty() {
        let headers = check.headers.iter().map(|(name, value)| (name.clone(), json!([value])));
        definition["Header"] = Value::Object(headers.collect());
    }
    if check.is_tls {
        definition["GRPCUseTLS"] = true.into();
    }
    definition
}

fn seconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

fn text(value: &Value) -> Bytes {
    value.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_described_as_consul_wants_them() {
        let second = Duration::from_secs(1);
        let entry = Entry::new("web", "10.0.0.1:80".parse().unwrap());
        let http = Check::http("http://10.0.0.1/health", second).header("host", "web.internal");
        let expected = json!({ "CheckID": "web-10.0.0.1-80:0", "Name": "http",
            "HTTP": "http://10.0.0.1/health", "Interval": "1000ms", "Timeout": "1000ms",
            "Status": "passing", "Header": { "host": ["web.internal"] } });
        assert_eq!(probe(&entry, 0, &http), expected);

        let grpc = probe(&entry, 1, &Check::grpc("10.0.0.1:80/web.v1.Web", second).tls());
        assert_eq!(
            (&grpc["GRPC"], &grpc["GRPCUseTLS"]),
            (&"10.0.0.1:80/web.v1.Web".into(), &true.into())
        );
        assert_eq!(probe(&entry, 2, &Check::tcp("10.0.0.1:80", second))["TCP"], "10.0.0.1:80");
    }
}
