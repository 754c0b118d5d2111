//! How the cookie is set.

use std::time::Duration;

use http::HeaderValue;

/// The requests from other sites that a browser sends the cookie with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// None.
    Strict,
    /// Only when the user follows a link.
    Lax,
    /// All. The cookie is then always `Secure`.
    None,
}

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
    /// Whether browsers keep a cookie with this name and these attributes.
    pub(super) fn allow(&self, name: &str) -> bool {
        let is_host_only = Prefix::of(name).is_some_and(|prefix| prefix.is_host_only);
        !is_host_only || self.path == "/" && self.domain.is_none()
    }

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
        // Browsers refuse one without the other.
        let prefix = Prefix::of(name);
        if self.is_secure || self.same_site == SameSite::None || prefix.is_some() {
            line += "; Secure";
        }
        if self.is_http_only || prefix.is_some_and(|prefix| prefix.is_http_only) {
            line += "; HttpOnly";
        }
        HeaderValue::try_from(line).expect("names and attributes were checked when they were set")
    }
}

/// A prefix of a name for which browsers require attributes (RFC 6265bis, section 4.1.3): always
/// `Secure`.
#[derive(Clone, Copy)]
struct Prefix {
    /// It has no domain, and the path `/`.
    is_host_only: bool,
    is_http_only: bool,
}

impl Prefix {
    fn of(name: &str) -> Option<Self> {
        const PREFIXES: [(&str, bool, bool); 4] = [
            ("__Host-Http-", true, true),
            ("__Host-", true, false),
            ("__Http-", false, true),
            ("__Secure-", false, false),
        ];
        let begins_with = |prefix: &str| {
            name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        PREFIXES
            .into_iter()
            .find(|(prefix, ..)| begins_with(prefix))
            .map(|(_, is_host_only, is_http_only)| Self { is_host_only, is_http_only })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_of_the_name_brings_the_attributes_that_browsers_require() {
        let open = Attributes { is_secure: false, is_http_only: false, ..Attributes::default() };
        for (name, expected) in [
            ("sid", "sid=x; Path=/; SameSite=Lax"),
            ("__Secure-sid", "__Secure-sid=x; Path=/; SameSite=Lax; Secure"),
            ("__host-sid", "__host-sid=x; Path=/; SameSite=Lax; Secure"),
            ("__Http-sid", "__Http-sid=x; Path=/; SameSite=Lax; Secure; HttpOnly"),
            ("__Host-Http-sid", "__Host-Http-sid=x; Path=/; SameSite=Lax; Secure; HttpOnly"),
        ] {
            assert_eq!(open.set_cookie(name, "x"), expected);
        }
    }
}
