//! The layout of etcd's own package `naming/endpoints`.

use evenkeel_core::{BoxError, endpoint::Endpoint};
use serde_json::Value;

use super::{Dialect, metadata_of, segment, texts, with_metadata};
use crate::{entry::Entry, go};

/// `SERVICE/ID` and `{"Op":0,"Addr":"10.0.0.1:80","Metadata":…}`, as etcd's `naming/endpoints` writes and its
/// resolver for grpc-go reads.
///
/// Like that resolver, reading ignores `Op`. Metadata that is not an object becomes the entry
/// `metadata`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Naming;

impl Dialect for Naming {
    fn prefix(&self, service: &str) -> String {
        format!("{service}/")
    }

    fn read(&self, _: &str, _: &str, value: &[u8]) -> Result<Vec<Endpoint>, BoxError> {
        let value: Value = serde_json::from_slice(value)?;
        let address = value["Addr"].as_str().ok_or("there is no `Addr`")?;
        let metadata = &value["Metadata"];
        let mut endpoint = with_metadata(address.parse()?, texts(metadata));
        if let Some(text) = metadata.as_str() {
            endpoint = endpoint.metadata("metadata", text);
        }
        Ok(vec![endpoint])
    }

    fn write(&self, entry: &Entry, _: i64) -> Result<(String, Vec<u8>), BoxError> {
        let metadata = match metadata_of(entry) {
            none if none.is_empty() => "null".to_owned(),
            some => go::json(&some)?,
        };
        let address = go::json(&entry.address.to_string())?;
        // In the order in which Go writes the fields of the struct.
        let value = format!(r#"{{"Op":0,"Addr":{address},"Metadata":{metadata}}}"#);
        Ok((self.prefix(&entry.service) + &segment(&entry.id), value.into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_etcds_package_and_of_its_documentation_are_read() {
        let read = |value: &str| Naming.read("web", "web/1", value.as_bytes()).unwrap().remove(0);
        let plain: Endpoint = "10.0.0.1:80".parse().unwrap();
        assert_eq!(read(r#"{"Op":0,"Addr":"10.0.0.1:80","Metadata":null}"#), plain);
        assert_eq!(read(r#"{"Addr":"10.0.0.1:80"}"#), plain);
        let text = read(r#"{"Addr":"10.0.0.1:80","Metadata":"v7"}"#);
        assert_eq!(text, plain.clone().metadata("metadata", "v7"));
        let object = read(r#"{"Addr":"10.0.0.1:80","Metadata":{"weight":5,"k":true}}"#);
        assert_eq!(object, plain.weight(5).metadata("k", "true"));
    }

    #[test]
    fn values_are_written_as_etcds_package_writes_them() {
        let entry = Entry::new("web", "10.0.0.1:80".parse().unwrap()).id("10.0.0.1:80");
        let (key, value) = Naming.write(&entry, 1).unwrap();
        assert_eq!(key, "web/10.0.0.1:80");
        assert_eq!(value, br#"{"Op":0,"Addr":"10.0.0.1:80","Metadata":null}"#);
    }
}
