//! The layout of entries in etcd's keys and values.
//!
//! | dialect | key | value |
//! |---|---|---|
//! | [`Plain`] | `/evenkeel/SERVICE/ID` | JSON as in a file of endpoints: `{"address":"10.0.0.1:80","weight":10}` |
//! | [`Naming`] | `SERVICE/ID` | etcd's own package `naming/endpoints`, which grpc-go resolves: `{"Op":0,"Addr":"10.0.0.1:80","Metadata":{}}` |
//! | [`Micro`] | `/micro/registry/SERVICE/ID` | go-micro v2: the service with one node, as JSON |
//! | [`Kit`] | `PREFIX/ID` | go-kit: the address alone, with or without a scheme |
//! | [`Zero`] | `SERVICE/LEASE` | go-zero: the address alone |
//! | [`Kratos`] | `/microservices/SERVICE/ID` | Kratos: the instance with a URL for each protocol, as JSON |
//!
//! Every prefix ends with a slash, so that `web` never matches keys of `web-admin`. If a layout has
//! no field for the weight, the weight is the entry `weight` of the metadata; the same holds for
//! `zone`. If it has no metadata either, all endpoints have the same weight, and a service in
//! maintenance is removed.

mod bare;
mod kratos;
mod micro;
mod naming;
mod plain;

use std::collections::BTreeMap;

use evenkeel_core::{BoxError, endpoint::Endpoint, number::digits};
use serde_json::Value;

use crate::entry::Entry;

pub use self::{
    bare::{Kit, Zero},
    kratos::Kratos,
    micro::Micro,
    naming::Naming,
    plain::Plain,
};

/// The layout of entries in etcd's keys and values.
///
/// To use one of your own, pass it to [`Etcd::dialect`](super::Etcd::dialect).
pub trait Dialect: Send + Sync + 'static {
    /// The prefix of the keys of `service`, and of no other service: it should end with a slash.
    fn prefix(&self, service: &str) -> String;

    /// The endpoints in one key; none if the key is there for something else.
    ///
    /// # Errors
    /// If the value cannot be read. The key is then left out, which does not affect the others.
    fn read(&self, service: &str, key: &str, value: &[u8]) -> Result<Vec<Endpoint>, BoxError>;

    /// The key and the value for an entry that is attached to `lease`.
    ///
    /// # Errors
    /// If the layout cannot express it.
    fn write(&self, entry: &Entry, lease: i64) -> Result<(String, Vec<u8>), BoxError>;

    /// Whether the layout has weights. If not, an entry of weight 0 is removed.
    fn has_weights(&self) -> bool {
        true
    }
}

/// Sets the endpoint's weight and zone from its metadata.
fn with_metadata(mut endpoint: Endpoint, metadata: BTreeMap<String, String>) -> Endpoint {
    for (key, value) in metadata {
        match (&*key, digits(&value)) {
            ("weight", Some(weight)) => endpoint = endpoint.weight(weight),
            ("zone", _) => endpoint = endpoint.zone(&*value).metadata(key, value),
            _ => endpoint = endpoint.metadata(key, value),
        }
    }
    endpoint
}

/// The metadata of an entry, with its weight if that differs from 1.
fn metadata_of(entry: &Entry) -> BTreeMap<String, String> {
    let mut metadata = entry.all_metadata();
    if !entry.tags.is_empty() {
        metadata.insert("tags".into(), entry.tags.join(","));
    }
    if entry.effective_weight() != 1 {
        metadata.insert("weight".into(), entry.effective_weight().to_string());
    }
    metadata
}

/// The entries of a JSON object as texts; none if it is not an object.
fn texts(value: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let entries = value.as_object().into_iter().flatten();
    entries.map(|(key, value)| (key.clone(), text(value))).collect()
}

/// One segment of a key.
fn segment(text: &str) -> String {
    text.replace('/', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> [Box<dyn Dialect>; 6] {
        [
            Box::new(Plain),
            Box::new(Naming),
            Box::new(Micro),
            Box::new(Kit::new("/services/web")),
            Box::new(Zero),
            Box::new(Kratos::new("grpc")),
        ]
    }

    #[test]
    fn a_weight_consists_of_digits_only() {
        for (text, weight) in [("7", 7), ("+7", 1), ("-7", 1), ("7.0", 1), ("4294967296", 1)] {
            let metadata = BTreeMap::from([("weight".to_owned(), text.to_owned())]);
            let endpoint = with_metadata("a:1".parse().unwrap(), metadata);
            assert_eq!(endpoint.weight, weight, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (dialect, address) in all()
            .iter()
            .flat_map(|dialect| [(dialect, "10.0.0.1:80"), (dialect, "[2001:db8::1]:80")])
        {
            let entry =
                Entry::new("web", address.parse().unwrap()).weight(7).zone("eu").version("2");

            let (key, value) = dialect.write(&entry, 77).unwrap();
            let read = dialect.read("web", &key, &value).unwrap();

            assert!(key.starts_with(&dialect.prefix("web")), "{key}");
            assert_eq!(read.len(), 1, "{key}");
            assert_eq!(read[0].address, entry.address, "{key}");
            if dialect.has_weights() {
                assert_eq!((read[0].weight, read[0].zone.as_deref()), (7, Some("eu")), "{key}");
                assert_eq!(read[0].metadata["version"], "2", "{key}");
                let drained = Entry { maintenance: Some("x".into()), ..entry };
                let (key, value) = dialect.write(&drained, 77).unwrap();
                assert_eq!(dialect.read("web", &key, &value).unwrap()[0].weight, 0, "{key}");
            }
        }
    }

    #[test]
    fn a_service_has_no_keys_of_one_with_a_longer_name() {
        for dialect in all() {
            let prefix = dialect.prefix("web");
            assert!(prefix.ends_with('/'), "{prefix}");
        }
    }

    #[test]
    fn garbage_is_an_error_or_nothing_and_never_a_panic() {
        let values: [&[u8]; 10] = [
            b"",
            b"{",
            b"null",
            b"[]",
            b"{}",
            b"\xff\xfe",
            b"{\"Addr\":7}",
            b"10.0.0.1:0",
            b"{\"nodes\":[{\"address\":\"x\"}]}",
            b"{\"endpoints\":[\"grpc://\",7]}",
        ];
        for dialect in all() {
            for value in values {
                let read = dialect.read("web", "/whatever", value);
                assert!(read.is_err() || read.unwrap().is_empty(), "{value:?}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_value_makes_it_panic_and_what_is_taken_can_be_written_again(
            which in 0..6_usize,
            address in "[0-9a-z:.\\[\\]-]{0,12}(:[0-9]{0,6})?",
            weight in 0..9_u32,
            changes in proptest::collection::vec(
                (proptest::prelude::any::<proptest::sample::Index>(), proptest::prelude::any::<u8>()),
                0..4,
            ),
        ) {
            let dialects = all();
            let mut values = vec![address.into_bytes()];
            for dialect in &dialects {
                let entry = Entry::new("web", "10.0.0.1:80".parse().unwrap()).weight(weight);
                values.push(dialect.write(&entry.zone("eu"), 7).unwrap().1);
            }
            for mut value in values {
                for (place, byte) in &changes {
                    if !value.is_empty() {
                        let place = place.index(value.len());
                        value[place] = *byte;
                    }
                }
                let dialect = &dialects[which];
                for endpoint in dialect.read("web", "/web/1", &value).unwrap_or_default() {
                    proptest::prop_assert_ne!(endpoint.address.port(), Some(0));
                    let entry = Entry::new("web", endpoint.address.clone());
                    let (key, value) = dialect.write(&entry, 7).unwrap();
                    let again = dialect.read("web", &key, &value).unwrap();
                    proptest::prop_assert_eq!(&again[0].address, &endpoint.address);
                }
            }
        }
    }
}
