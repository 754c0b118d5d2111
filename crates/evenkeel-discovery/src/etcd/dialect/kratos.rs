//! The layout of Kratos' registry in etcd.

use std::{collections::BTreeMap, sync::Arc};

use evenkeel_core::{BoxError, endpoint::Endpoint};
use serde::{Deserialize, Serialize};

use super::{Dialect, metadata_of, segment, with_metadata};
use crate::{entry::Entry, go};

/// `/microservices/SERVICE/ID`, and the instance with a URL for each protocol, as Kratos writes it.
///
/// The endpoint comes from the URL with the chosen scheme. An instance without such a URL has none.
#[derive(Clone, Debug)]
pub struct Kratos {
    scheme: Arc<str>,
}

#[derive(Deserialize, Serialize)]
struct Instance {
    #[serde(default)]
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
    #[serde(default)]
    endpoints: Option<Vec<String>>,
}

impl Kratos {
    /// The endpoints that speak `scheme`: `grpc` or `http`.
    #[must_use]
    pub fn new(scheme: impl Into<Arc<str>>) -> Self {
        Self { scheme: scheme.into() }
    }
}

impl Dialect for Kratos {
    fn prefix(&self, service: &str) -> String {
        format!("/microservices/{}/", segment(service))
    }

    fn read(&self, service: &str, _: &str, value: &[u8]) -> Result<Vec<Endpoint>, BoxError> {
        let instance: Instance = serde_json::from_slice(value)?;
        if instance.name != service {
            return Ok(vec![]);
        }
        let metadata = instance.metadata.unwrap_or_default();
        let mut endpoints = vec![];
        for url in instance.endpoints.unwrap_or_default() {
            let Some((scheme, rest)) = url.split_once("://") else { continue };
            if scheme != &*self.scheme {
                continue;
            }
            let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
            let mut endpoint = with_metadata(address.parse()?, metadata.clone());
            if !instance.version.is_empty() {
                endpoint = endpoint.metadata("version", &instance.version);
            }
            if query.split('&').any(|pair| pair == "isSecure=true") {
                endpoint = endpoint.metadata("isSecure", "true");
            }
            endpoints.push(endpoint);
        }
        Ok(endpoints)
    }

    fn write(&self, entry: &Entry, _: i64) -> Result<(String, Vec<u8>), BoxError> {
        let mut metadata = metadata_of(entry);
        metadata.remove("version");
        let instance = Instance {
            id: entry.id.clone(),
            name: entry.service.to_string(),
            version: entry.version.clone().unwrap_or_default(),
            metadata: Some(metadata),
            endpoints: Some(vec![format!("{}://{}", self.scheme, entry.address)]),
        };
        let key = self.prefix(&entry.service) + &segment(&entry.id);
        Ok((key, go::json(&instance)?.into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &[u8] = br#"{"id":"a","name":"user","version":"v1","metadata":{"weight":"5"},
        "endpoints":["http://10.0.0.1:8000","grpc://10.0.0.1:9000?isSecure=false"]}"#;

    #[test]
    fn what_kratos_writes_is_read() {
        let expected: Endpoint = "10.0.0.1:9000".parse().unwrap();
        let expected = expected.weight(5).metadata("version", "v1");
        assert_eq!(Kratos::new("grpc").read("user", "k", WRITTEN).unwrap(), [expected]);
        assert_eq!(Kratos::new("https").read("user", "k", WRITTEN).unwrap(), []);
        assert_eq!(Kratos::new("grpc").read("users", "k", WRITTEN).unwrap(), []);
    }
}
