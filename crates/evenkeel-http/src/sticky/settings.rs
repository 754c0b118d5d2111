//! What a session's cookie is called, and how it is written and read.

use std::sync::Arc;

use evenkeel_core::endpoint::Address;
use http::{HeaderMap, HeaderValue};

use super::{
    cookie::Attributes,
    seal::{Form, Seal},
};
use crate::cookie;

/// How many cookies of the name are read from one request.
const MAX_COOKIES: usize = 8;

/// The settings of sticky sessions.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) name: Arc<str>,
    pub(super) form: Form,
    /// The first one writes. All are tried for reading.
    pub(super) seals: Vec<Seal>,
    pub(super) attributes: Attributes,
}

impl Settings {
    /// The endpoints that a request's cookies of the name stand for, in order.
    pub(super) fn endpoints(&self, headers: &HeaderMap) -> impl Iterator<Item = Address> {
        let values = cookie::values(headers, &self.name).take(MAX_COOKIES);
        values.filter_map(|value| self.seals.iter().find_map(|seal| seal.read(&self.name, value)))
    }

    /// The header that sets the cookie to `address`.
    pub(super) fn set_cookie(&self, address: &Address) -> HeaderValue {
        self.attributes.set_cookie(&self.name, &self.seals[0].write(&self.name, address))
    }
}
