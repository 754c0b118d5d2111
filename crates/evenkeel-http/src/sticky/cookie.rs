//! The cookie as it is set.

use std::time::Duration;

use http::HeaderValue;

use super::layer::SameSite;

/// How a cookie is set (RFC 6265bis).
#[derive(Clone, Debug)]
pub(super) struct Attributes {
    pub(super) path: String,
    pub(super) domain: Option<String>,
    pub(super) max_age: Option<Duration>,
    pub(super) is_secure: bool,
    pub(super) is_http_only: bool,
    pub(super) same_site: SameSite,
}

impl Default for Attributes {
    fn default() -> Self {
        Self {
            path: "/".to_owned(),
            domain: None,
            max_age: None,
            is_secure: true,
            is_http_only: true,
            same_site: SameSite::Lax,
        }
    }
}

impl Attributes {
    /// `Set-Cookie` for this name and value.
    pub(super) fn set_cookie(&self, name: &str, value: &str) -> HeaderValue {
        let mut line = format!("{name}={value}; Path={}", self.path);
        if let Some(domain) = &self.domain {
            line += &format!("; Domain={domain}");
        }
        if let Some(max_age) = self.max_age {
            line += &format!("; Max-Age={}", max_age.as_secs());
        }
        line += match self.same_site {
            SameSite::Strict => "; SameSite=Strict",
            SameSite::Lax => "; SameSite=Lax",
            SameSite::None => "; SameSite=None",
        };
        // Browsers refuse the one without the other.
        if self.is_secure || self.same_site == SameSite::None {
            line += "; Secure";
        }
        if self.is_http_only {
            line += "; HttpOnly";
        }
        HeaderValue::try_from(line).expect("names and attributes were checked when they were set")
    }
}

/// Whether it can be the name of a cookie.
pub(super) fn is_name(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token)
}

/// Whether it can be the value of an attribute.
pub(super) fn is_attribute(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b';')
}
