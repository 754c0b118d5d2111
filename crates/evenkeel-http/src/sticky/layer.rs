//! How a session stays on its endpoint.

use std::{sync::Arc, time::Duration};

use evenkeel_core::endpoint::Address;
use http::HeaderMap;
use tower_layer::Layer;

use super::{
    Sticky,
    cookie::{Attributes, is_attribute, is_name},
    seal::{Form, Seal},
};
use crate::cookie;

/// How many cookies of the name are looked at in one request.
const COOKIES_MAX: usize = 8;

/// Which requests of other sites a browser sends the cookie with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// With none.
    Strict,
    /// Where somebody follows a link.
    Lax,
    /// With all. The cookie is then always `Secure`.
    None,
}

/// Keeps each session on its endpoint, by a cookie that names it.
///
/// **Use it** at the server's edge, above the balancer and retries, where endpoints keep state for a session
/// that the others lack. **Not** for caches, which a [policy that hashes](crate::HashBy) serves without a
/// cookie, and not where callers keep no cookies.
///
/// * A request without a cookie goes where the policy sends it, and the response sets the cookie to the endpoint
///   that served it: [`ServedBy`](crate::ServedBy).
/// * A request with one goes to that endpoint while it is open, in whatever order the policy would choose. Gone
///   or closed, full or drained, or tried already by the same call, another is chosen by the policy, and the
///   response sets the cookie anew.
/// * Of several cookies of the name, as they come where one was set for another path or an endpoint that has
///   left, each is looked at, up to eight. The session stays where one of them leads.
/// * A response of a server error (5xx) sets no cookie: no session begins where it failed.
/// * What was not written with one of the secrets is taken for no cookie: callers choose no endpoint. Values
///   beyond 512 bytes are not looked at.
/// * A request that says itself what it [prefers](crate::Prefer) is left alone.
///
/// The value of a [signed](Self::signed) cookie shows the endpoint's address to who decodes it; that of an
/// [opaque](Self::opaque) one does not. Both hold on all machines that have the same secret, and after a
/// restart: nothing is kept in memory. It costs some allocations and a microsecond or two for each request
/// with a cookie.
///
/// ```
/// use std::time::Duration;
/// use evenkeel_http::{SameSite, StickyLayer};
///
/// let sticky = StickyLayer::opaque(b"a secret of 16 bytes or more")
///     .name("shop-session")
///     .path("/cart")
///     .max_age(Duration::from_secs(3_600))
///     .same_site(SameSite::Strict);
/// # drop(sticky);
/// ```
///
/// Placed in a stack:
///
/// ```
/// use evenkeel_core::endpoint::Endpoint;
/// use evenkeel_http::{HttpConnector, StickyLayer};
/// use evenkeel_layers::balance::BalanceLayer;
/// use tower::ServiceBuilder;
///
/// let endpoints: Vec<Endpoint> = vec!["10.0.0.1:80".parse()?, "10.0.0.2:80".parse()?];
/// let client = ServiceBuilder::new()
///     .layer(StickyLayer::signed(b"a secret of 16 bytes or more"))
///     .layer(BalanceLayer::p2c(endpoints))
///     .service(HttpConnector::<String>::new());
/// # drop(client);
/// # Ok::<_, evenkeel_core::endpoint::AddressError>(())
/// ```
#[derive(Clone, Debug)]
pub struct StickyLayer {
    pub(super) name: Arc<str>,
    form: Form,
    /// The first writes, all are tried for reading.
    seals: Vec<Seal>,
    pub(super) attributes: Attributes,
}

impl StickyLayer {
    /// A cookie with the endpoint's address, signed by HMAC-SHA256.
    ///
    /// # Panics
    /// If the secret is shorter than 16 bytes.
    #[must_use]
    pub fn signed(secret: impl AsRef<[u8]>) -> Self {
        Self::new(Form::Signed, secret.as_ref())
    }

    /// A cookie with the endpoint's address, encrypted by XChaCha20-Poly1305, so that callers cannot read it.
    ///
    /// # Panics
    /// If the secret is shorter than 16 bytes.
    #[must_use]
    pub fn opaque(secret: impl AsRef<[u8]>) -> Self {
        Self::new(Form::Opaque, secret.as_ref())
    }

    fn new(form: Form, secret: &[u8]) -> Self {
        Self {
            name: "evenkeel".into(),
            form,
            seals: vec![Seal::new(form, secret)],
            attributes: Attributes::default(),
        }
    }

    /// Reads cookies that were written with `secret` as well, so that secrets can be changed.
    ///
    /// Give all machines the new one to read, then make it the one that writes, then let go of the old one.
    ///
    /// # Panics
    /// If the secret is shorter than 16 bytes.
    #[must_use]
    pub fn also_reads(mut self, secret: impl AsRef<[u8]>) -> Self {
        self.seals.push(Seal::new(self.form, secret.as_ref()));
        self
    }

    /// Sets what the cookie is called. Default `evenkeel`. Services of one site need one each.
    ///
    /// A name that begins with `__Secure-` or `__Host-` makes the cookie `Secure`, whatever
    /// [`secure`](Self::secure) says, and `__Http-` or `__Host-Http-` makes it `HttpOnly` as well: without
    /// it browsers do not keep it (RFC 6265bis).
    ///
    /// # Panics
    /// If `name` has anything in it that a cookie's name has not, or begins with `__Host-` where a
    /// [domain](Self::domain) or another [path](Self::path) than `/` is set.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        assert!(is_name(name), "{name:?} is no name for a cookie");
        self.name = name.into();
        self.checked()
    }

    /// Sets the path below which it is sent. Default `/`.
    ///
    /// # Panics
    /// If `path` is no path, or another than `/` where the [name](Self::name) begins with `__Host-`.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        assert!(path.starts_with('/') && is_attribute(path), "{path:?} is no path");
        path.clone_into(&mut self.attributes.path);
        self.checked()
    }

    /// Sets the domain it is sent to, with all that is below it. Default the host that set it alone.
    ///
    /// # Panics
    /// If `domain` is no domain, or where the [name](Self::name) begins with `__Host-`.
    #[must_use]
    pub fn domain(mut self, domain: &str) -> Self {
        assert!(is_attribute(domain), "{domain:?} is no domain");
        self.attributes.domain = Some(domain.to_owned());
        self.checked()
    }

    /// Sets how long it is kept, in whole seconds from when it was set. Default until the browser ends.
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.attributes.max_age = Some(max_age);
        self
    }

    /// Sets whether it is sent over TLS alone. Default true: over plain HTTP browsers do not keep it then.
    #[must_use]
    pub fn secure(mut self, is_secure: bool) -> Self {
        self.attributes.is_secure = is_secure;
        self
    }

    /// Sets whether it is hidden from scripts. Default true.
    #[must_use]
    pub fn http_only(mut self, is_http_only: bool) -> Self {
        self.attributes.is_http_only = is_http_only;
        self
    }

    /// Sets with which requests of other sites it is sent. Default [`SameSite::Lax`].
    #[must_use]
    pub fn same_site(mut self, same_site: SameSite) -> Self {
        self.attributes.same_site = same_site;
        self
    }

    /// The endpoint that a request's cookie names, if one of the secrets wrote it.
    ///
    /// Of several cookies of the name it is the first that one of them wrote.
    #[must_use]
    pub fn endpoint(&self, headers: &HeaderMap) -> Option<Address> {
        self.endpoints(headers).next()
    }

    /// The endpoints that a request's cookies of the name stand for, in their order.
    pub(super) fn endpoints(&self, headers: &HeaderMap) -> impl Iterator<Item = Address> {
        let values = cookie::values(headers, &self.name).take(COOKIES_MAX);
        values.filter_map(|value| self.seals.iter().find_map(|seal| seal.read(&self.name, value)))
    }

    fn checked(self) -> Self {
        assert!(
            self.attributes.allow(&self.name),
            "a cookie called {:?} has the path `/` and no domain, or browsers do not keep it",
            self.name
        );
        self
    }

    /// The value that stands for `address`.
    pub(super) fn value(&self, address: &Address) -> String {
        self.seals[0].write(&self.name, address)
    }
}

impl<S> Layer<S> for StickyLayer {
    type Service = Sticky<S>;

    fn layer(&self, inner: S) -> Sticky<S> {
        Sticky::new(inner, self.clone())
    }
}
