//! Keeps a session on its endpoint.

use std::time::Duration;

use evenkeel_core::endpoint::Address;
use http::HeaderMap;
use tower_layer::Layer;

use super::{
    cookie::{Attributes, SameSite, is_attribute, is_name},
    seal::{Form, Seal},
    service::Sticky,
    settings::Settings,
};

/// Keeps each session on its endpoint, by a cookie that names it.
///
/// **Use it** at the server's edge, above the balancer and retries, if each endpoint keeps state for its
/// sessions that the others lack. **Not** for caches, for which a [policy that hashes](crate::HashBy) needs no
/// cookie, and not if callers keep no cookies.
///
/// * A request without a cookie goes where the policy sends it, and the response sets the cookie to the endpoint
///   that served it: [`ServedBy`](crate::ServedBy).
/// * A request with a cookie goes to that endpoint while it is open, whatever the policy would choose. If the
///   endpoint is gone, closed, full, drained, or was tried already by the same call, the policy chooses
///   another, and the response sets the cookie again.
/// * A request may have several cookies of the name, if one was set for another path or for an endpoint that
///   has left. Each is read, up to eight, and the session stays where one of them leads.
/// * A server error (5xx) sets no cookie: no session begins on an endpoint that failed.
/// * A value that was not written with one of the secrets is ignored, so callers cannot choose an endpoint.
///   Values beyond 512 bytes are not read.
/// * A request with its own [preference](crate::Prefer) does not change.
///
/// The value of a [signed](Self::signed) cookie shows the endpoint's address to anyone who decodes it. That of
/// an [opaque](Self::opaque) one does not. Both are valid on all machines with the same secret, and after a
/// restart: nothing is kept in memory. Each request with a cookie costs some allocations and a microsecond or
/// two.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::http::{SameSite, StickyLayer};
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
/// use evenkeel::core::endpoint::Endpoint;
/// use evenkeel::http::{HttpConnector, StickyLayer};
/// use evenkeel::balance::BalanceLayer;
/// use tower::ServiceBuilder;
///
/// let endpoints: Vec<Endpoint> = vec!["10.0.0.1:80".parse()?, "10.0.0.2:80".parse()?];
/// let client = ServiceBuilder::new()
///     .layer(StickyLayer::signed(b"a secret of 16 bytes or more"))
///     .layer(BalanceLayer::p2c(endpoints))
///     .service(HttpConnector::<String>::new());
/// # drop(client);
/// # Ok::<_, evenkeel::core::endpoint::AddressError>(())
/// ```
#[derive(Clone, Debug)]
pub struct StickyLayer {
    settings: Settings,
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
        let settings = Settings {
            name: "evenkeel".into(),
            form,
            seals: vec![Seal::new(form, secret)],
            attributes: Attributes::default(),
        };
        Self { settings }
    }

    /// Also reads cookies that were written with `secret`, so that secrets can be changed.
    ///
    /// First let all machines read the new secret, then write with it, then remove the old one.
    ///
    /// # Panics
    /// If the secret is shorter than 16 bytes.
    #[must_use]
    pub fn also_reads(mut self, secret: impl AsRef<[u8]>) -> Self {
        let Settings { form, seals, .. } = &mut self.settings;
        seals.push(Seal::new(*form, secret.as_ref()));
        self
    }

    /// Sets the name of the cookie. Default: `evenkeel`. Each service of a site needs its own.
    ///
    /// A name that begins with `__Secure-` or `__Host-` makes the cookie `Secure`, even if
    /// [`secure`](Self::secure) is false. `__Http-` or `__Host-Http-` also makes it `HttpOnly`. Otherwise
    /// browsers do not keep it (RFC 6265bis).
    ///
    /// # Panics
    /// If `name` is not valid as the name of a cookie, or begins with `__Host-` while a
    /// [domain](Self::domain) or a [path](Self::path) other than `/` is set.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        assert!(is_name(name), "{name:?} is no name for a cookie");
        self.settings.name = name.into();
        self.checked()
    }

    /// Sets the path below which the cookie is sent. Default: `/`.
    ///
    /// # Panics
    /// If `path` is not a path, or is not `/` while the [name](Self::name) begins with `__Host-`.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        assert!(path.starts_with('/') && is_attribute(path), "{path:?} is no path");
        path.clone_into(&mut self.settings.attributes.path);
        self.checked()
    }

    /// Sets the domain that the cookie is sent to, with its subdomains. Default: only the host that set it.
    ///
    /// # Panics
    /// If `domain` is not a domain, or if the [name](Self::name) begins with `__Host-`.
    #[must_use]
    pub fn domain(mut self, domain: &str) -> Self {
        assert!(is_attribute(domain), "{domain:?} is no domain");
        self.settings.attributes.domain = Some(domain.to_owned());
        self.checked()
    }

    /// Sets how long the cookie is kept after it was set, in whole seconds. Default: until the browser ends.
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.settings.attributes.max_age = Some(max_age);
        self
    }

    /// Sets whether the cookie is sent only over TLS. Default: true. Browsers then do not keep it over plain HTTP.
    #[must_use]
    pub fn secure(mut self, is_secure: bool) -> Self {
        self.settings.attributes.is_secure = is_secure;
        self
    }

    /// Sets whether the cookie is hidden from scripts. Default: true.
    #[must_use]
    pub fn http_only(mut self, is_http_only: bool) -> Self {
        self.settings.attributes.is_http_only = is_http_only;
        self
    }

    /// Sets with which requests from other sites the cookie is sent. Default: [`SameSite::Lax`].
    #[must_use]
    pub fn same_site(mut self, same_site: SameSite) -> Self {
        self.settings.attributes.same_site = same_site;
        self
    }

    /// The endpoint that a request's cookie names, if one of the secrets wrote it.
    ///
    /// If there are several cookies of the name, the first that one of the secrets wrote counts.
    #[must_use]
    pub fn endpoint(&self, headers: &HeaderMap) -> Option<Address> {
        self.settings.endpoints(headers).next()
    }

    fn checked(self) -> Self {
        let Settings { name, attributes, .. } = &self.settings;
        assert!(
            attributes.allow(name),
            "a cookie called {name:?} has the path `/` and no domain, or browsers do not keep it"
        );
        self
    }
}

impl<S> Layer<S> for StickyLayer {
    type Service = Sticky<S>;

    fn layer(&self, inner: S) -> Sticky<S> {
        Sticky::new(inner, self.settings.clone())
    }
}
