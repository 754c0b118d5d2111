//! The definition of a service and its checks for Consul.

use std::time::Duration;

use evenkeel_core::{BoxError, endpoint::Address};
use serde_json::{Value, json};

use super::{ConsulRegistry, OWNER, ROUND};
use crate::{
    consul::micro,
    register::{Check, Entry, Probe},
};

/// The whole service, with its heartbeat and the checks that the agent makes.
pub(super) fn service(
    registry: &ConsulRegistry,
    entry: &Entry,
    ttl: Duration,
) -> Result<Value, BoxError> {
    let tags = if registry.is_micro {
        let mut metadata = entry.all_metadata();
        let version = metadata.remove("version").unwrap_or_else(|| "latest".into());
        micro::write(&metadata, &version, &entry.tags)?
    } else {
        entry.tags.clone()
    };
    let mut metadata = entry.all_metadata();
    metadata.insert(OWNER.to_owned(), registry.owner.clone());
    if 0 < registry.round {
        metadata.insert(ROUND.to_owned(), registry.round.to_string());
    }
    let after = milliseconds(registry.deregister_critical_after);
    let heartbeat = json!({ "CheckID": heartbeat_id(entry), "Name": "heartbeat",
        "TTL": milliseconds(ttl), "Status": "passing", "DeregisterCriticalServiceAfter": after });
    let others = entry.checks.iter().enumerate().map(|(number, check)| probe(entry, number, check));
    let checks = std::iter::once(heartbeat).chain(others).map(|mut check| {
        if 0 < registry.round {
            check["Notes"] = format!("round {}", registry.round).into();
        }
        check
    });
    let mut definition = json!({
        "ID": entry.id, "Name": &*entry.service, "Tags": tags, "Meta": metadata,
        "Weights": { "Passing": entry.weight.clamp(1, 65_535), "Warning": 1 },
        "Checks": checks.collect::<Vec<_>>(),
    });
    let place = match &entry.address {
        // The agent replaces an empty address with that of its node.
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

/// The id of the check that heartbeats keep passing.
pub(super) fn heartbeat_id(entry: &Entry) -> String {
    format!("{}:heartbeat", entry.id)
}

/// Whether `id` is a check of this entry.
pub(super) fn has_check(entry: &Entry, id: &str) -> bool {
    id == heartbeat_id(entry) || (0..entry.checks.len()).any(|n| id == probe_id(entry, n))
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
    // Passing until the first probe says otherwise: the service has reported that it is ready.
    let mut definition = json!({ "CheckID": probe_id(entry, number), "Name": kind.to_lowercase(),
        kind: target, "Interval": milliseconds(check.interval), "Timeout": milliseconds(check.timeout),
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

fn milliseconds(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
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
