//! Endpoint slices as an API server writes them, with the fields that are read here.
//!
//! They are those of `discovery.k8s.io/v1`, and of `v1beta1`, which has the zone in a separate map.

use std::collections::BTreeMap;

use evenkeel_core::number::digits;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A page of a list, with its slices unparsed: an unreadable slice must not affect the others.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    #[serde(default)]
    pub(super) metadata: PageMeta,
    #[serde(default, deserialize_with = "nothing")]
    pub(super) items: Vec<Box<RawValue>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PageMeta {
    #[serde(deserialize_with = "nothing")]
    pub(super) resource_version: String,
    /// Where the next page begins; empty on the last.
    #[serde(deserialize_with = "nothing")]
    pub(super) r#continue: String,
}

/// A line of a watch.
#[derive(Debug, Deserialize)]
pub(super) struct Line<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) kind: &'a str,
    #[serde(borrow)]
    pub(super) object: &'a RawValue,
}

/// The fields of every object.
#[derive(Debug, Deserialize)]
pub(super) struct Object {
    pub(super) metadata: Meta,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Meta {
    pub(super) name: String,
    #[serde(deserialize_with = "nothing")]
    pub(super) uid: String,
    #[serde(deserialize_with = "nothing")]
    pub(super) resource_version: String,
}

/// Some of the endpoints of a service, all with the same ports.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Slice {
    pub(super) metadata: Meta,
    #[serde(default, deserialize_with = "nothing")]
    pub(super) address_type: String,
    #[serde(default, deserialize_with = "nothing")]
    pub(super) endpoints: Vec<Item>,
    #[serde(default, deserialize_with = "nothing")]
    pub(super) ports: Vec<Port>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Item {
    /// All of them are the same endpoint; only the first is to be used.
    #[serde(deserialize_with = "nothing")]
    pub(super) addresses: Vec<String>,
    #[serde(deserialize_with = "nothing")]
    pub(super) conditions: Conditions,
    pub(super) hostname: Option<String>,
    pub(super) node_name: Option<String>,
    pub(super) zone: Option<String>,
    pub(super) target_ref: Option<Target>,
    #[serde(deserialize_with = "nothing")]
    pub(super) hints: Hints,
    /// The map that holds the zone in `v1beta1`.
    #[serde(deserialize_with = "nothing")]
    pub(super) topology: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Conditions {
    pub(super) ready: Option<bool>,
    pub(super) serving: Option<bool>,
    pub(super) terminating: Option<bool>,
}

/// The object behind an endpoint, usually a pod.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Target {
    #[serde(deserialize_with = "nothing")]
    pub(super) kind: String,
    #[serde(deserialize_with = "nothing")]
    pub(super) name: String,
    #[serde(deserialize_with = "nothing")]
    pub(super) uid: String,
}

/// The zones and nodes for which an endpoint is meant.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Hints {
    #[serde(deserialize_with = "nothing")]
    pub(super) for_zones: Vec<Name>,
    #[serde(deserialize_with = "nothing")]
    pub(super) for_nodes: Vec<Name>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Name {
    pub(super) name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Port {
    #[serde(deserialize_with = "nothing")]
    pub(super) name: String,
    /// None if all ports are meant.
    pub(super) port: Option<i64>,
    pub(super) protocol: Option<String>,
    pub(super) app_protocol: Option<String>,
}

/// The body of an API server's refusal.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) code: u16,
    #[serde(deserialize_with = "nothing")]
    pub(super) reason: String,
    #[serde(deserialize_with = "nothing")]
    pub(super) message: String,
    #[serde(deserialize_with = "nothing")]
    pub(super) details: Details,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Details {
    #[serde(deserialize_with = "nothing")]
    pub(super) retry_after_seconds: u64,
}

impl Meta {
    /// The resource version as a number, as in every API server; 0 if it is not a number.
    pub(super) fn version(&self) -> u64 {
        digits(&self.resource_version).unwrap_or_default()
    }
}

/// Reads `null` as the default: Go writes an empty list and an empty map like that.
fn nothing<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_with_nothing_in_it_is_read() {
        let text = r#"{"metadata":{"name":"web-1","uid":null},"addressType":"IPv4","endpoints":null,"ports":null}"#;
        let slice: Slice = serde_json::from_str(text).unwrap();
        assert_eq!((slice.endpoints.len(), slice.metadata.version()), (0, 0));
    }

    #[test]
    fn unknown_and_null_fields_are_ignored() {
        let text = r#"{"kind":"EndpointSlice","metadata":{"name":"web-1","resourceVersion":"7","managedFields":[{}]},
            "addressType":"IPv4","ports":[{"port":80}],
            "endpoints":[{"addresses":["10.0.0.1"],"conditions":null,"hints":null,"targetRef":{"kind":"Pod"}}]}"#;
        let slice: Slice = serde_json::from_str(text).unwrap();
        assert_eq!(slice.metadata.version(), 7);
        assert_eq!(slice.endpoints[0].conditions.ready, None);
    }

    #[test]
    fn a_version_consists_of_digits_only() {
        for (text, number) in [("7", 7), ("+7", 0), ("-7", 0), ("", 0), ("7a", 0)] {
            let meta = Meta { resource_version: text.into(), ..Meta::default() };
            assert_eq!(meta.version(), number, "{text}");
        }
    }
}
