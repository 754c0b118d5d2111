//! The state of an entry at its agent, and in the catalogue that callers read.

use std::time::Duration;

use bytes::Bytes;
use evenkeel_core::BoxError;
use serde_json::{Map, Value, json};

use super::{OWNER, definition};
use crate::{
    consul::{
        agent::{Agent, encode, refusal_status},
        query::quoted,
    },
    register::Entry,
};

/// The end of a maintenance reason that the service has set itself.
const BY_ITSELF: &str = " (set by the service)";

/// The beginning of the id of a service's maintenance check.
const MAINTENANCE: &str = "_service_maintenance";

/// The reason of a maintenance, as it is written and recognized.
pub(super) fn reason(entry: &Entry) -> String {
    let reason = entry.maintenance.as_deref().unwrap_or("weight 0");
    format!("{reason}{BY_ITSELF}")
}

/// The owner of the existing entry, empty if it has none; none if there is no entry.
pub(super) async fn owner(agent: &Agent, entry: &Entry) -> Result<Option<String>, BoxError> {
    let path = format!("/v1/agent/service/{}", encode(&entry.id));
    match agent.get(&path, Duration::ZERO).await {
        Ok(answer) => {
            let service: Value = serde_json::from_slice(&answer.body)?;
            Ok(Some(service["Meta"][OWNER].as_str().unwrap_or_default().to_owned()))
        }
        Err(error) if refusal_status(&error) == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The checks of an entry at its agent.
pub(super) struct Checks(Map<String, Value>);

impl Checks {
    pub(super) async fn read(agent: &Agent, entry: &Entry) -> Result<Self, BoxError> {
        let answer = agent.get("/v1/agent/checks", Duration::ZERO).await?;
        let mut checks: Map<String, Value> = serde_json::from_slice(&answer.body)?;
        checks.retain(|_, check| check["ServiceID"] == *entry.id);
        Ok(Self(checks))
    }

    /// The name of the agent's node.
    pub(super) fn node(&self) -> Option<String> {
        self.0.values().find_map(|check| check["Node"].as_str()).map(str::to_owned)
    }

    /// Whether this service, or a predecessor under the same id, has set its maintenance itself.
    pub(super) fn is_drained_by_itself(&self) -> bool {
        self.0.iter().any(|(id, check)| {
            id.starts_with(MAINTENANCE)
                && check["Notes"].as_str().is_some_and(|notes| notes.ends_with(BY_ITSELF))
        })
    }

    /// Whether the owner of the entry has not sent a heartbeat for its whole TTL.
    pub(super) fn is_run_out(&self, entry: &Entry) -> bool {
        self.0
            .get(&definition::heartbeat_id(entry))
            .is_some_and(|check| check["Status"] == "critical")
    }

    /// Removes checks of a predecessor that this entry does not have: no heartbeat would pass them.
    pub(super) async fn remove_strange(
        &self,
        agent: &Agent,
        entry: &Entry,
    ) -> Result<(), BoxError> {
        for id in self.0.keys() {
            if !definition::has_check(entry, id) && !id.starts_with(MAINTENANCE) {
                let path = format!("/v1/agent/check/deregister/{}", encode(id));
                agent.put(&path, Bytes::new()).await?;
            }
        }
        Ok(())
    }
}

/// Whether the catalogue has this node's entry as `service` describes it, and passing; none if that
/// cannot be determined. It costs one question about two rows, to any server.
pub(super) async fn is_in_catalogue(
    agent: &Agent,
    node: &str,
    entry: &Entry,
    service: &Value,
) -> Option<bool> {
    let check = json!({ "Node": node, "CheckID": definition::heartbeat_id(entry) });
    let both = json!([
        { "Service": { "Verb": "get", "Node": node, "Service": { "ID": entry.id } } },
        { "Check": { "Verb": "get", "Check": check } },
    ]);
    let answer = match agent.put("/v1/txn?stale", both.to_string().into()).await {
        Ok(answer) => answer,
        // One of the two does not exist.
        Err(error) if refusal_status(&error) == Some(409) => return Some(false),
        Err(_) => return None,
    };
    let found: Value = serde_json::from_slice(&answer.body).ok()?;
    let (known, check) = (&found["Results"][0]["Service"], &found["Results"][1]["Check"]);
    let is_same = |key: &str| known[key] == service[key];
    Some(
        is_same("Meta")
            && known["Weights"]["Passing"] == service["Weights"]["Passing"]
            && (is_same("Tags") || known["Tags"].is_null() && service["Tags"] == json!([]))
            && check["Status"] == "passing",
    )
}

/// Removes the entry from its agent, if it belongs to `owner`. Afterwards it is gone.
pub(super) async fn remove(agent: &Agent, entry: &Entry, owner: &str) -> Result<(), BoxError> {
    if self::owner(agent, entry).await?.as_deref() == Some(owner) {
        let path = format!("/v1/agent/service/deregister/{}", encode(&entry.id));
        agent.put(&path, Bytes::new()).await?;
    }
    Ok(())
}

/// Removes from the catalogue what `owner` has entered and what is still there, at any agent.
pub(super) async fn remove_from_catalogue(
    agent: &Agent,
    entry: &Entry,
    owner: &str,
) -> Result<(), BoxError> {
    let filter = encode(&format!("ServiceID == {}", quoted(&entry.id)));
    let path = format!("/v1/catalog/service/{}?filter={filter}", encode(&entry.service));
    let answer = agent.get(&path, Duration::ZERO).await?;
    let rows: Vec<Value> = serde_json::from_slice(&answer.body)?;
    for row in rows.iter().filter(|row| row["ServiceMeta"][OWNER] == owner) {
        let body = json!({ "Node": row["Node"], "ServiceID": entry.id });
        agent.put("/v1/catalog/deregister", body.to_string().into()).await?;
    }
    Ok(())
}
