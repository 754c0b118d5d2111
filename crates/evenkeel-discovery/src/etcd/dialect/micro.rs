//! The layout of go-micro v2's registry in etcd.

use std::collections::BTreeMap;

use evenkeel_core::{BoxError, endpoint::Endpoint};
use serde::{Deserialize, Serialize};

use super::{Dialect, metadata_of, segment, with_metadata};
use crate::{entry::Entry, go};

/// `/micro/registry/SERVICE/ID`, and the service with one node, as go-micro v2 writes it.
///
/// The service's version becomes the entry `version` of the metadata. The entry `protocol` says
/// what a node speaks: `grpc`, or go-micro's own; select with
/// [`filter`](crate::DiscoveryExt::filter).
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
            endpoints: None,
            nodes: Some(vec![node]),
        };
        let key = self.prefix(&entry.service) + &segment(&entry.id);
        Ok((key, go::json(&service)?.into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_go_micro_writes() {
        let vectors = include_str!("../../../tests/vectors/go-micro/go1.19.8.json");
        let vectors: serde_json::Value = serde_json::from_str(vectors).unwrap();
        for vector in vectors["etcd"].as_array().unwrap() {
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            let (service, node) = (&vector["service"], &vector["service"]["nodes"][0]);
            let address = text(&node["address"]).parse().unwrap();
            let mut entry = Entry::new(text(&service["name"]), address).id(text(&node["id"]));
            entry = entry.version(text(&service["version"]));
            for (key, value) in node["metadata"].as_object().unwrap() {
                entry = entry.metadata(key, text(value));
            }

            let (key, value) = Micro.write(&entry, 1).unwrap();

            assert_eq!(String::from_utf8(value.clone()).unwrap(), vector["value"]);
            let read = Micro.read(&entry.service, &key, &value).unwrap();
            assert_eq!(read[0].address, entry.address);
            assert_eq!(read[0].metadata["version"], text(&service["version"]));
        }
        let entry = Entry::new("go.micro/api", "a:1".parse().unwrap()).id("a/b");
        assert_eq!(Micro.write(&entry, 1).unwrap().0, "/micro/registry/go.micro-api/a-b");
    }

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
