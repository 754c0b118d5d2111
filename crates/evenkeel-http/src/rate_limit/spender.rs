//! The quota that a request spends.

use std::net::{IpAddr, SocketAddr};

use evenkeel_core::quota::Spender;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Request};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Gives each value of a header its own quota: an API key, a tenant.
///
/// Put it behind a check of that value. Otherwise a caller that makes up a new value for each request is
/// not limited.
///
/// ```
/// use evenkeel::core::quota::Spender;
/// use evenkeel::http::HeaderSpender;
///
/// let spender = HeaderSpender::new(http::HeaderName::from_static("x-api-key"));
/// let request = http::Request::get("/").header("x-api-key", "abc").body(()).unwrap();
/// assert!(spender.with_key(&request, |key| key == Some(b"abc")));
/// ```
#[derive(Clone, Debug)]
pub struct HeaderSpender {
    name: HeaderName,
    is_optional: bool,
}

impl HeaderSpender {
    /// Requests with the same value of the header `name` share a quota. Requests without it share another.
    #[must_use]
    pub fn new(name: HeaderName) -> Self {
        Self { name, is_optional: false }
    }

    /// Lets requests without the header through. By default they share one quota.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.is_optional = true;
        self
    }
}

impl<B> Spender<Request<B>> for HeaderSpender {
    fn with_key<T>(&self, request: &Request<B>, spend: impl FnOnce(Option<&[u8]>) -> T) -> T {
        let value = request.headers().get(&self.name).map(HeaderValue::as_bytes);
        spend(if self.is_optional { value } else { Some(value.unwrap_or_default()) })
    }
}

/// Gives each caller's address its own quota.
///
/// Only the first 64 bits of an IPv6 address count, since one caller has all addresses with that prefix.
/// Requests without a known address share one quota.
///
/// ```
/// use std::net::SocketAddr;
/// use evenkeel::core::quota::Spender;
/// use evenkeel::http::AddressSpender;
///
/// // With axum: `extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0)`.
/// let spender = AddressSpender::new(|extensions| extensions.get::<SocketAddr>().copied());
///
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(SocketAddr::from(([10, 0, 0, 7], 4711)));
/// assert!(spender.with_key(&request, |key| key == Some(&[10, 0, 0, 7])));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct AddressSpender<F> {
    peer: F,
    proxies: usize,
}

impl<F: Fn(&Extensions) -> Option<SocketAddr>> AddressSpender<F> {
    /// Uses the address of the connection's other end, which `peer` finds in a request's extensions.
    #[must_use]
    pub fn new(peer: F) -> Self {
        Self { peer, proxies: 0 }
    }

    /// Sets how many proxies in front of this server are trusted. Default: 0.
    ///
    /// The address is then the one that the first of them saw: the entry of `X-Forwarded-For` at this
    /// position from the right. If the number is too low, all callers of a proxy share one quota. If it is
    /// too high, a caller chooses its address, since it writes the entries further left.
    #[must_use]
    pub fn behind_proxies(mut self, proxies: usize) -> Self {
        self.proxies = proxies;
        self
    }

    fn address(&self, headers: &HeaderMap, extensions: &Extensions) -> Option<IpAddr> {
        match self.proxies.checked_sub(1) {
            None => (self.peer)(extensions).map(|peer| peer.ip()),
            Some(from_right) => forwarded(headers, from_right),
        }
    }
}

impl<F, B> Spender<Request<B>> for AddressSpender<F>
where
    F: Fn(&Extensions) -> Option<SocketAddr>,
{
    fn with_key<T>(&self, request: &Request<B>, spend: impl FnOnce(Option<&[u8]>) -> T) -> T {
        match self.address(request.headers(), request.extensions()).map(|ip| ip.to_canonical()) {
            Some(IpAddr::V4(ip)) => spend(Some(&ip.octets())),
            Some(IpAddr::V6(ip)) => spend(Some(&ip.octets()[..8])),
            None => spend(Some(b"")),
        }
    }
}

/// The address `from_right` places left of the last one.
fn forwarded(headers: &HeaderMap, from_right: usize) -> Option<IpAddr> {
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let mut addresses = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
    let address = addresses.nth(from_right)?.trim();
    // Some write the port as well.
    address.parse().ok().or_else(|| Some(address.parse::<SocketAddr>().ok()?.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(proxies: usize, forwarded: &[&str]) -> Vec<u8> {
        let peer = |_: &Extensions| Some(SocketAddr::from(([9, 9, 9, 9], 9)));
        let spender = AddressSpender::new(peer).behind_proxies(proxies);
        let mut request = Request::new(());
        for line in forwarded {
            request.headers_mut().append(X_FORWARDED_FOR, line.parse().unwrap());
        }
        spender.with_key(&request, |key| key.unwrap().to_vec())
    }

    #[test]
    fn an_address_that_a_caller_writes_itself_does_not_count() {
        assert_eq!(key(0, &["1.1.1.1"]), [9, 9, 9, 9]);
        assert_eq!(key(1, &["1.1.1.1, 2.2.2.2"]), [2, 2, 2, 2]);
        assert_eq!(key(2, &["1.1.1.1, 2.2.2.2", "3.3.3.3"]), [2, 2, 2, 2]);
        assert_eq!(key(2, &["3.3.3.3"]), b"");
    }

    #[test]
    fn addresses_are_read_as_they_are_written() {
        assert_eq!(key(1, &["1.2.3.4:567"]), [1, 2, 3, 4]);
        assert_eq!(key(1, &["::ffff:1.2.3.4"]), [1, 2, 3, 4]);
        assert_eq!(key(1, &["2001:db8:1:2:3:4:5:6"]), key(1, &["[2001:db8:1:2::7]:80"]));
        assert_eq!(key(1, &["unknown"]), b"");
    }

    #[test]
    fn requests_without_the_header_share_a_quota_or_have_none() {
        let spender = HeaderSpender::new(HeaderName::from_static("x-api-key"));
        let request = Request::new(());
        assert!(spender.with_key(&request, |key| key == Some(b"")));
        assert!(spender.optional().with_key(&request, |key| key.is_none()));
    }
}
