//! Entries of go-micro v2, which holds metadata in compressed tags.
//!
//! There is one tag `t-…` for each entry of the metadata, one `e-…` for each endpoint in go-micro's
//! sense (a method), and one `v-…` with the version. The older, uncompressed forms are `t=…`, `e=…`
//! and `v=…`. For each letter, the form that is found first counts, and the other is skipped.

use std::collections::BTreeMap;

use evenkeel_core::BoxError;

use crate::go;

/// The content of go-micro's tags.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) version: Option<String>,
    /// The tags that are not go-micro's.
    pub(crate) others: Vec<String>,
}

/// Reads an entry's tags. Unreadable ones are skipped, as go-micro does.
pub(crate) fn read(tags: Vec<String>) -> Told {
    let mut told = Told::default();
    let mut form = None;
    for tag in tags {
        let [letter @ (b't' | b'e' | b'v'), mark @ (b'-' | b'='), ..] = tag.as_bytes() else {
            told.others.push(tag);
            continue;
        };
        let text = &tag[2..];
        let text = || if *mark == b'=' { Some(text.into()) } else { decode(text) };
        match letter {
            b't' if *form.get_or_insert(*mark) == *mark => {
                let entries: Option<BTreeMap<String, String>> =
                    text().and_then(|text| serde_json::from_slice(&text).ok());
                told.metadata.extend(entries.into_iter().flatten());
            }
            b'v' if told.version.is_none() => {
                let version = text().and_then(|text| String::from_utf8(text).ok());
                told.version = Some(version.unwrap_or_default());
            }
            _ => {}
        }
    }
    told
}

/// The tags of an entry with this metadata and version, as go-micro writes them, and `others` after them.
pub(crate) fn write(
    metadata: &BTreeMap<String, String>,
    version: &str,
    others: &[String],
) -> Result<Vec<String>, BoxError> {
    let mut tags = vec![];
    for (key, value) in metadata {
        tags.push(format!("t-{}", encode(go::json(&BTreeMap::from([(key, value)]))?.as_bytes())));
    }
    tags.push(format!("v-{}", encode(version.as_bytes())));
    // Last, so that a tag such as `tls` is not taken for a form of go-micro's. Its readers look at
    // the second letter of each tag without checking that there is one.
    tags.extend(others.iter().filter(|tag| 1 < tag.len()).cloned());
    Ok(tags)
}

fn encode(text: &[u8]) -> String {
    let bytes = go::deflate::compress(text).into_iter();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

fn decode(hex: &str) -> Option<Vec<u8>> {
    let bytes: Option<Vec<u8>> = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| {
            let text = std::str::from_utf8(pair).ok().filter(|text| text.len() == 2)?;
            let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
            u8::from_str_radix(text, 16).ok().filter(|_| is_hex)
        })
        .collect();
    go::deflate::decompress(&bytes?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Made by go-micro's own code; see `tests/vectors/go-micro/make`.
    const VECTORS: [&str; 2] = [
        include_str!("../../tests/vectors/go-micro/go1.19.8.json"),
        include_str!("../../tests/vectors/go-micro/go1.27.3.json"),
    ];

    fn metadata(value: &Value) -> BTreeMap<String, String> {
        serde_json::from_value(value.clone()).unwrap()
    }

    fn texts(value: &Value) -> Vec<String> {
        serde_json::from_value(value.clone()).unwrap()
    }

    #[test]
    fn tags_are_those_that_go_micro_writes() {
        let vectors: Value = serde_json::from_str(VECTORS[0]).unwrap();
        let all = vectors["consul"].as_array().unwrap();
        assert!(10 < all.len());
        for vector in all {
            let version = vector["version"].as_str().unwrap();
            let written = write(&metadata(&vector["metadata"]), version, &[]).unwrap();
            assert_eq!(written, texts(&vector["tags"]), "{vector}");
        }
    }

    #[test]
    fn tags_of_go_micro_are_read_whatever_compressed_them() {
        for vectors in VECTORS {
            let vectors: Value = serde_json::from_str(vectors).unwrap();
            for vector in vectors["consul"].as_array().unwrap() {
                let told = read(texts(&vector["tags"]));
                assert_eq!(told.metadata, metadata(&vector["metadata"]), "{vector}");
                assert_eq!(told.version.as_deref(), vector["version"].as_str(), "{vector}");
                assert!(told.others.is_empty());
            }
            for vector in vectors["read"].as_array().unwrap() {
                let told = read(texts(&vector["tags"]));
                assert_eq!(told.metadata, metadata(&vector["metadata"]), "{vector}");
                assert_eq!(told.version.unwrap_or_default(), vector["version"], "{vector}");
            }
        }
    }

    #[test]
    fn the_users_own_tags_stand_last_and_survive() {
        let own = ["tls".to_owned(), "t".to_owned(), "v2".to_owned()];
        let tags = write(&BTreeMap::from([("a".into(), "b".into())]), "7", &own).unwrap();
        assert_eq!(&tags[2..], ["tls", "v2"]);
        let told = read(tags);
        assert_eq!((told.metadata["a"].as_str(), told.version.as_deref()), ("b", Some("7")));
        assert_eq!(told.others, ["tls", "v2"]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            metadata in proptest::collection::btree_map(".{0,8}", ".{0,99}", 0..5), version in ".{0,9}"
        ) {
            let told = read(write(&metadata, &version, &[]).unwrap());
            prop_assert_eq!(told.metadata, metadata);
            prop_assert_eq!(told.version, Some(version));
        }

        #[test]
        fn no_tag_makes_it_panic(
            tags in proptest::collection::vec(prop_oneof![".*", "[tev][-=].*", "[tev]-[0-9a-f]*"], 0..9)
        ) {
            read(tags);
        }
    }
}
