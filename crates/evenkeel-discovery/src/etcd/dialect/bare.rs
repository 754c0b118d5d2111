//! Layouts in which a value is just an address: those of go-kit and go-zero.

use std::sync::Arc;

use evenkeel_core::{BoxError, endpoint::Endpoint};

use super::{Dialect, segment};
use crate::entry::Entry;

/// `PREFIX/ID` and an address, as in go-kit's `sd/etcdv3`: `http://10.0.0.1:80` or `10.0.0.1:80`.
///
/// The prefix is up to the user, as in go-kit. The name of the service is not part of it.
#[derive(Clone, Debug)]
pub struct Kit {
    prefix: Arc<str>,
    scheme: Option<Arc<str>>,
}

impl Kit {
    /// Keys that begin with `prefix`. A slash is added if it does not end with one.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self { prefix: format!("{}/", prefix.trim_end_matches('/')).into(), scheme: None }
    }

    /// Sets the scheme before `://` in values that are written. Default: none.
    #[must_use]
    pub fn scheme(mut self, scheme: impl Into<Arc<str>>) -> Self {
        self.scheme = Some(scheme.into());
        self
    }
}

impl Dialect for Kit {
    fn prefix(&self, _: &str) -> String {
        self.prefix.to_string()
    }

    fn read(&self, _: &str, _: &str, value: &[u8]) -> Result<Vec<Endpoint>, BoxError> {
        read(value)
    }

    fn write(&self, entry: &Entry, _: i64) -> Result<(String, Vec<u8>), BoxError> {
        let value = match &self.scheme {
            Some(scheme) => format!("{scheme}://{}", entry.address),
            None => entry.address.to_string(),
        };
        Ok((self.prefix(&entry.service) + &segment(&entry.id), value.into_bytes()))
    }

    fn has_weights(&self) -> bool {
        false
    }
}

/// `SERVICE/LEASE` and `host:port`, as in go-zero's `discov`: the service `user.rpc` has the keys
/// `user.rpc/7587862094…`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Zero;

impl Dialect for Zero {
    fn prefix(&self, service: &str) -> String {
        format!("{service}/")
    }

    fn read(&self, _: &str, _: &str, value: &[u8]) -> Result<Vec<Endpoint>, BoxError> {
        read(value)
    }

    fn write(&self, entry: &Entry, lease: i64) -> Result<(String, Vec<u8>), BoxError> {
        let key = format!("{}{lease}", self.prefix(&entry.service));
        Ok((key, entry.address.to_string().into_bytes()))
    }

    fn has_weights(&self) -> bool {
        false
    }
}

fn read(value: &[u8]) -> Result<Vec<Endpoint>, BoxError> {
    let text = std::str::from_utf8(value)?.trim();
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
    Ok(vec![bare.split('/').next().unwrap_or(bare).parse()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_a_scheme() {
        for text in ["10.0.0.1:80", "http://10.0.0.1:80", "https://10.0.0.1:80/api\n"] {
            assert_eq!(read(text.as_bytes()).unwrap(), ["10.0.0.1:80".parse().unwrap()]);
        }
    }

    #[test]
    fn keys_are_those_of_the_frameworks() {
        let entry = Entry::new("user.rpc", "10.0.0.1:80".parse().unwrap()).id("a/1");
        assert_eq!(Zero.write(&entry, 75).unwrap().0, "user.rpc/75");
        let kit = Kit::new("/services/user/").scheme("http");
        let written = kit.write(&entry, 75).unwrap();
        assert_eq!(written, ("/services/user/a-1".into(), b"http://10.0.0.1:80".into()));
    }
}
