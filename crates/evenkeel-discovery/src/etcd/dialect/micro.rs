//! The layout of go-micro v2's registry in etcd.

use std::collections::BTreeMap;

use evenkeel_core::{BoxError, endpoint::Endpoint};
use serde::{Deserialize, Serialize};

use super::{Dialect, metadata_of, segment, with_metadata};
use crate::register::Entry;

/// `/micro/registry/SERVICE/ID`, and the service with one node, as go-micro v2 writes it.
///
/// The service's version becomes the entry `version` of the metadata. An endpoint's node says in `protocol`
/// what it speaks: `grpc`, or go-micro's own; [`filter`](crate::DiscoveryExt::filter) chooses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Micro;

#[derive(Deserialize, Serialize)]
struct Service {
    #[serde(default)]
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
    #[serde(default)]
    endpoints: Option<Vec<serde_json::Value>>,
    #[serde(default)]
    nodes: Option<Vec<Node>>,
}

#[derive(Deserialize, Serialize)]
struct Node {
    #[serde(default)]
    id: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
}

impl Dialect for Micro {
    fn prefix(&self, service: &str) -> String {
        format!("/micro/registry/{}/", segment(service))
    }

    fn read(&self, _: &str, _: &str, value: &[u8]) -> Result<Vec<Endpoint>, BoxError> {
        let service: Service = serde_json::from_slice(value)?;
        let mut endpoints = vec![];
        for node in service.nodes.unwrap_or_default() {
            let mut endpoint =
                with_metadata(node.address.parse()?, node.metadata.unwrap_or_default());
            if !service.version.is_empty() {
                endpoint = endpoint.metadata("version", &service.version);
            }
            endpoints.push(endpoint);
        }
        Ok(endpoints)
    }

    fn write(&self, entry: &Entry, _: i64) -> Result<(String, Vec<u8>), BoxError> {
        let mut metadata = metadata_of(entry);
        metadata.remove("version");
        let node = Node {
            id: entry.id.clone(),
            address: entry.address.to_string(),
            metadata: Some(metadata),
        };
        let service = Service {
            name: entry.service.to_string(),
            version: entry.version.clone().unwrap_or_else(|| "latest".into()),
            metadata: None,
            endpoints: Some(vec![]),
            nodes: Some(vec![node]),
        };
        let key = self.prefix(&entry.service) + &segment(&entry.id);
        Ok((key, serde_json::to_vec(&service)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_micro_writes_is_read() {
        let value = br#"{"name":"greeter","version":"latest","metadata":null,"endpoints":[{"name":"G.H"}],
            "nodes":[{"id":"greeter-7c","address":"10.0.0.1:8080","metadata":{"protocol":"grpc"}}]}"#;
        let read = Micro.read("greeter", "k", value).unwrap();
        let expected: Endpoint = "10.0.0.1:8080".parse().unwrap();
        let expected = expected.metadata("protocol", "grpc").metadata("version", "latest");
        assert_eq!(read, [expected]);
        assert_eq!(Micro.prefix("a/b"), "/micro/registry/a-b/");
    }
}
