//! This library's own layout.

use std::collections::BTreeMap;

use evenkeel_core::{BoxError, endpoint::Endpoint};
use serde::{Deserialize, Serialize};

use super::{Dialect, segment};
use crate::entry::Entry;

/// `/evenkeel/SERVICE/ID`, and an endpoint as in a file of endpoints. A value that is just an
/// address is read too, so `etcdctl put /evenkeel/web/1 10.0.0.1:80` makes an entry.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

#[derive(Deserialize, Serialize)]
struct Written {
    address: String,
    #[serde(default = "one")]
    weight: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    priority: u32,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
}

fn one() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Dialect for Plain {
    fn prefix(&self, service: &str) -> String {
        format!("/evenkeel/{}/", segment(service))
    }

    fn read(&self, _: &str, _: &str, value: &[u8]) -> Result<Vec<Endpoint>, BoxError> {
        if !value.trim_ascii_start().starts_with(b"{") {
            return Ok(vec![std::str::from_utf8(value)?.trim().parse()?]);
        }
        let written: Written = serde_json::from_slice(value)?;
        let mut endpoint: Endpoint = written.address.parse()?;
        endpoint = endpoint.weight(written.weight).priority(written.priority);
        if let Some(zone) = written.zone {
            endpoint = endpoint.zone(zone);
        }
        for (key, value) in written.metadata {
            endpoint = endpoint.metadata(key, value);
        }
        Ok(vec![endpoint])
    }

    fn write(&self, entry: &Entry, _: i64) -> Result<(String, Vec<u8>), BoxError> {
        let mut metadata = entry.all_metadata();
        metadata.remove("zone");
        if !entry.tags.is_empty() {
            metadata.insert("tags".into(), entry.tags.join(","));
        }
        let written = Written {
            address: entry.address.to_string(),
            weight: entry.effective_weight(),
            zone: entry.zone.clone(),
            priority: 0,
            metadata,
        };
        let key = self.prefix(&entry.service) + &segment(&entry.id);
        Ok((key, serde_json::to_vec(&written)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_alone_and_an_endpoint_are_read() {
        let read = |value: &str| Plain.read("web", "k", value.as_bytes()).unwrap().remove(0);
        assert_eq!(read("10.0.0.1:80\n"), "10.0.0.1:80".parse().unwrap());
        let full = read(r#"{"address":"10.0.0.1:80","weight":0,"zone":"z","priority":2}"#);
        let expected: Endpoint = "10.0.0.1:80".parse().unwrap();
        assert_eq!(full, expected.weight(0).zone("z").priority(2));
    }
}
