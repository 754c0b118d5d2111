//! The rules that compute the hash of a request.

use std::{
    fmt::{self, Write},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use evenkeel_core::hash::{crc32, xxh64, xxh64_seeded};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use crate::cookie;

/// The most values of one header that count.
const MAX_VALUES: usize = 16;

/// Rules that compute the hash of a request, for a policy that hashes.
///
/// The rules are applied in order, and their values are combined, as in Envoy's `hash_policy`: if two rules
/// find a value, both count. After a [`terminal`](Self::terminal) rule no other rule is applied if any value
/// was found so far. A rule that finds nothing, or an empty value, is skipped. If no rule finds a value, the
/// request has no hash and goes to any endpoint.
///
/// A value is hashed by xxHash64 with seed 0, as in Envoy and gRPC, so that the same value finds the same
/// endpoint there under [`RingHash`](evenkeel_core::policy::RingHash) and
/// [`Maglev`](evenkeel_core::policy::Maglev). With [`crc32`](Self::crc32) it is hashed as in nginx. Nothing is
/// allocated.
///
/// gRPC metadata are headers: use [`header`](Self::header). Binary metadata are hashed as they are sent, in
/// base64.
///
/// ```
/// use evenkeel::http::{HashBy, HashKey, HttpConnector, RequestHead};
/// use http::{HeaderName, Request};
///
/// let by = HashBy::new().header(HeaderName::from_static("x-user")).terminal().cookie("sid");
/// # let by_hash = by.clone();
/// let connector: HttpConnector<String> = HttpConnector::new().hash_by(by);
/// # drop(connector);
///
/// # let by = by_hash;
/// let both = Request::get("/").header("x-user", "alice").header("cookie", "sid=7").body(())?;
/// assert_eq!(by.hash(RequestHead::of(&both)), Some(HashKey::of("alice").0));
/// let one = Request::get("/").header("cookie", "a=b; sid=7").body(())?;
/// assert_eq!(by.hash(RequestHead::of(&one)), Some(HashKey::of("7").0));
/// assert_eq!(by.hash(RequestHead::of(&Request::new(()))), None);
/// # Ok::<_, http::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct HashBy {
    rules: Vec<Rule>,
    is_crc32: bool,
}

#[derive(Clone, Debug)]
struct Rule {
    source: Source,
    is_terminal: bool,
}

#[derive(Clone)]
enum Source {
    Header(HeaderName),
    Cookie(Box<str>),
    Path,
    Query(Box<str>),
    Address(Arc<dyn Fn(&Extensions) -> Option<SocketAddr> + Send + Sync>),
    Own(Arc<dyn Fn(RequestHead<'_>) -> Option<u64> + Send + Sync>),
}

/// What a rule may see of a request.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RequestHead<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its URI.
    pub uri: &'a Uri,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its extensions.
    pub extensions: &'a Extensions,
}

impl<'a> RequestHead<'a> {
    /// The head of `request`.
    #[must_use]
    pub fn of<B>(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }
}

impl HashBy {
    /// No rules yet: no request has a hash.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Hashes by the value of a header. If there are several, all count in any order, up to 16.
    #[must_use]
    pub fn header(self, name: HeaderName) -> Self {
        self.rule(Source::Header(name))
    }

    /// Hashes by the value of a cookie, the first of that name.
    #[must_use]
    pub fn cookie(self, name: &str) -> Self {
        self.rule(Source::Cookie(name.into()))
    }

    /// Hashes by the path, without the query.
    #[must_use]
    pub fn path(self) -> Self {
        self.rule(Source::Path)
    }

    /// Hashes by the first query parameter of that name, as it is written: it is not decoded.
    #[must_use]
    pub fn query(self, name: &str) -> Self {
        self.rule(Source::Query(name.into()))
    }

    /// Hashes by the caller's IP address, which `peer` finds in a request's extensions.
    ///
    /// The address is hashed as text, as in Envoy, without the port. Behind a proxy all callers have the
    /// same address: hash by a header that the proxy sets.
    ///
    /// ```
    /// use std::net::SocketAddr;
    /// use evenkeel::http::{HashBy, HashKey, RequestHead};
    ///
    /// // With axum: `extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0)`.
    /// let by = HashBy::new().address(|extensions| extensions.get().copied());
    ///
    /// let mut request = http::Request::new(());
    /// request.extensions_mut().insert(SocketAddr::from(([10, 0, 0, 7], 4711)));
    /// assert_eq!(by.hash(RequestHead::of(&request)), Some(HashKey::of("10.0.0.7").0));
    /// ```
    #[must_use]
    pub fn address(
        self,
        peer: impl Fn(&Extensions) -> Option<SocketAddr> + Send + Sync + 'static,
    ) -> Self {
        self.rule(Source::Address(Arc::new(peer)))
    }

    /// Hashes by the result of `hash`; `None` if it finds nothing.
    ///
    /// It runs on the request's path and must not block. [`HashKey::of`](crate::HashKey::of) hashes a key.
    #[must_use]
    pub fn own(
        self,
        hash: impl Fn(RequestHead<'_>) -> Option<u64> + Send + Sync + 'static,
    ) -> Self {
        self.rule(Source::Own(Arc::new(hash)))
    }

    /// Makes the rule before this the last one that is applied, if any value was found so far.
    ///
    /// # Panics
    /// If there is no rule before this.
    #[must_use]
    pub fn terminal(mut self) -> Self {
        self.rules.last_mut().expect("a rule comes before `terminal`").is_terminal = true;
        self
    }

    /// Hashes values by CRC-32, as nginx does, for [`Ketama`](evenkeel_core::policy::Ketama).
    #[must_use]
    pub fn crc32(mut self) -> Self {
        self.is_crc32 = true;
        self
    }

    /// The hash of a request, if any rule finds something.
    #[must_use]
    pub fn hash(&self, request: RequestHead<'_>) -> Option<u64> {
        let mut hash: Option<u64> = None;
        for rule in &self.rules {
            if let Some(found) = self.find(&rule.source, request) {
                hash = Some(hash.map_or(found, |hash| hash.rotate_left(1) ^ found));
            }
            if rule.is_terminal && hash.is_some() {
                break;
            }
        }
        hash
    }

    fn rule(mut self, source: Source) -> Self {
        self.rules.push(Rule { source, is_terminal: false });
        self
    }

    fn find(&self, source: &Source, request: RequestHead<'_>) -> Option<u64> {
        let value = match source {
            Source::Header(name) => return self.header_values(request.headers, name),
            Source::Cookie(name) => cookie::value(request.headers, name)?,
            Source::Path => request.uri.path().as_bytes(),
            Source::Query(name) => parameter(request.uri.query()?, name)?.as_bytes(),
            Source::Address(peer) => {
                let address = Text::of(peer(request.extensions)?.ip().to_canonical());
                return Some(self.value(address.as_bytes()));
            }
            Source::Own(hash) => return hash(request),
        };
        (!value.is_empty()).then(|| self.value(value))
    }

    #[inline]
    fn value(&self, value: &[u8]) -> u64 {
        if self.is_crc32 { crc32(value).into() } else { xxh64(value) }
    }

    fn header_values(&self, headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
        let mut found = headers.get_all(name).iter().map(HeaderValue::as_bytes);
        let first = found.next()?;
        let Some(second) = found.next() else {
            return (!first.is_empty()).then(|| self.value(first));
        };
        let mut values = [&b""[..]; MAX_VALUES];
        (values[0], values[1]) = (first, second);
        let mut count = 2;
        for (place, value) in values[2..].iter_mut().zip(found) {
            *place = value;
            count += 1;
        }
        let values = &mut values[..count];
        values.sort_unstable();
        Some(if self.is_crc32 {
            values.iter().fold(0, |hash, value| hash.rotate_left(1) ^ u64::from(crc32(value)))
        } else {
            // As in Envoy: the hash of one value is the seed of the next.
            values.iter().fold(0, |hash, value| xxh64_seeded(value, hash))
        })
    }
}

/// The value of the first parameter called `name`.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| {
        let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
        (found == name).then_some(value)
    })
}

/// An IP address as it is written, without a string.
struct Text {
    bytes: [u8; Self::MAX_LENGTH],
    length: usize,
}

impl Text {
    /// The length of an IPv6 address with an IPv4 address at its end.
    const MAX_LENGTH: usize = 45;

    fn of(address: IpAddr) -> Self {
        let mut text = Self { bytes: [0; Self::MAX_LENGTH], length: 0 };
        write!(text, "{address}").expect("every address fits");
        text
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        let place = self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => f.debug_tuple("Header").field(name).finish(),
            Self::Cookie(name) => f.debug_tuple("Cookie").field(name).finish(),
            Self::Path => f.write_str("Path"),
            Self::Query(name) => f.debug_tuple("Query").field(name).finish(),
            Self::Address(_) => f.write_str("Address"),
            Self::Own(_) => f.write_str("Own"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: HeaderName = HeaderName::from_static("x-user");

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn hash(by: &HashBy, uri: &str, headers: &[(&str, &str)]) -> Option<u64> {
        by.hash(RequestHead::of(&request(uri, headers)))
    }

    #[test]
    fn each_source_is_hashed_by_its_value() {
        let headers = [("x-user", "v"), ("cookie", "a=b; sid=v")];
        let uri = "/v?a=b&q=v&q=w";
        for by in
            [HashBy::new().header(USER), HashBy::new().cookie("sid"), HashBy::new().query("q")]
        {
            assert_eq!(hash(&by, uri, &headers), Some(xxh64(b"v")), "{by:?}");
        }
        assert_eq!(hash(&HashBy::new().path(), uri, &headers), Some(xxh64(b"/v")));
        let own = HashBy::new().own(|request| Some(request.method.as_str().len() as u64));
        assert_eq!(hash(&own, uri, &headers), Some(3));
        let nginx = HashBy::new().header(USER).crc32();
        assert_eq!(hash(&nginx, uri, &headers), Some(crc32(b"v").into()));
    }

    #[test]
    fn missing_and_empty_values_are_passed_over() {
        let by = HashBy::new().header(USER).cookie("sid").query("q");
        assert_eq!(hash(&by, "/", &[]), None);
        assert_eq!(hash(&by, "/?q", &[("x-user", ""), ("cookie", "sid=")]), None);
        assert_eq!(hash(&by, "/?q=v", &[("x-user", "")]), Some(xxh64(b"v")));
    }

    #[test]
    fn rules_are_combined_until_one_is_terminal() {
        let headers = [("x-user", "v")];
        let both = hash(&HashBy::new().header(USER).query("q"), "/?q=w", &headers);
        assert_eq!(both, Some(xxh64(b"v").rotate_left(1) ^ xxh64(b"w")));
        let first = HashBy::new().header(USER).terminal().query("q");
        assert_eq!(hash(&first, "/?q=w", &headers), Some(xxh64(b"v")));
        assert_eq!(hash(&first, "/?q=w", &[]), Some(xxh64(b"w")));
    }

    #[test]
    fn the_order_of_several_values_does_not_matter_and_there_may_be_many() {
        let by = HashBy::new().header(USER);
        let one = hash(&by, "/", &[("x-user", "a"), ("x-user", "b")]);
        assert_eq!(one, hash(&by, "/", &[("x-user", "b"), ("x-user", "a")]));
        assert_eq!(one, Some(xxh64_seeded(b"b", xxh64(b"a"))));
        assert!(hash(&by, "/", &[("x-user", "a"); 100]).is_some());
    }

    #[test]
    fn every_address_fits_and_an_ipv4_address_is_one_in_either_form() {
        let by = HashBy::new().address(|extensions| extensions.get().copied());
        let hash = |address: &str| {
            let mut request = request("/", &[]);
            request.extensions_mut().insert(SocketAddr::new(address.parse().unwrap(), 1));
            by.hash(RequestHead::of(&request))
        };
        assert_eq!(hash("10.0.0.7"), Some(xxh64(b"10.0.0.7")));
        assert_eq!(hash("::ffff:10.0.0.7"), hash("10.0.0.7"));
        let longest = "2001:db8:1111:2222:3333:4444:5555:6666";
        assert_eq!(hash(longest), Some(xxh64(longest.as_bytes())));
    }

    #[test]
    fn nothing_is_allocated() {
        let by = HashBy::new().header(USER).cookie("sid").path().query("q");
        let by = by.address(|extensions| extensions.get().copied());
        let mut request =
            request("/a?q=1", &[("x-user", "a"), ("x-user", "b"), ("cookie", "sid=7")]);
        request.extensions_mut().insert(SocketAddr::from(([10, 0, 0, 7], 1)));

        let counted = allocation_counter::measure(|| {
            std::hint::black_box(by.hash(RequestHead::of(&request)));
        });

        assert_eq!(counted.count_total, 0);
    }

    #[test]
    #[should_panic(expected = "a rule comes before")]
    fn terminal_needs_a_rule() {
        let _ = HashBy::new().terminal();
    }
}
