//! Which authority a request names, and the URI that it is sent with.

use evenkeel_core::endpoint::Address;
use http::{
    HeaderValue, Request, Uri, header,
    uri::{Authority, Parts, PathAndQuery, Scheme},
};

use crate::error::InvalidRequest;

/// An authority, and the same as the value of a `Host` header.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) authority: Authority,
    header: HeaderValue,
}

impl Host {
    /// # Errors
    /// If `text` is no authority.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidRequest> {
        let authority = text.parse().map_err(|_| InvalidRequest::Authority)?;
        let header = HeaderValue::from_str(text).map_err(|_| InvalidRequest::Authority)?;
        Ok(Self { authority, header })
    }

    /// The authority of an endpoint itself, for requests that name none.
    pub(crate) fn of(address: &Address) -> Self {
        // A Unix socket has no authority; the usual stand-in is this.
        Self::parse(&address.to_string()).unwrap_or_else(|_| Self::localhost())
    }

    fn localhost() -> Self {
        Self {
            authority: Authority::from_static("localhost"),
            header: HeaderValue::from_static("localhost"),
        }
    }
}

/// The authority that `request` names: its URI's, else its `Host` header's, else `None`.
pub(crate) fn named_authority<B>(
    request: &Request<B>,
) -> Result<Option<Authority>, InvalidRequest> {
    if let Some(authority) = request.uri().authority() {
        return without_user(authority).map(Some);
    }
    let Some(host) = request.headers().get(header::HOST) else { return Ok(None) };
    let authority = Authority::try_from(host.as_bytes()).map_err(|_| InvalidRequest::Authority)?;
    without_user(&authority).map(Some)
}

/// Sets `Host` to what the URI names, else keeps it, else takes `default`.
pub(crate) fn set_host<B>(request: &mut Request<B>, default: &Host) -> Result<(), InvalidRequest> {
    let host = match request.uri().authority() {
        Some(authority) => HeaderValue::from_str(without_user(authority)?.as_str())
            .map_err(|_| InvalidRequest::Authority)?,
        None if request.headers().contains_key(header::HOST) => return Ok(()),
        None => default.header.clone(),
    };
    request.headers_mut().insert(header::HOST, host);
    Ok(())
}

/// Completes or replaces scheme and authority of the URI.
pub(crate) fn set_uri<B>(
    request: &mut Request<B>,
    scheme: Scheme,
    authority: Authority,
) -> Result<(), InvalidRequest> {
    let mut parts = Parts::default();
    parts.path_and_query = Some(match request.uri().path_and_query() {
        Some(path) => path.clone(),
        None => PathAndQuery::from_static("/"),
    });
    parts.scheme = Some(scheme);
    parts.authority = Some(authority);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| InvalidRequest::Uri)?;
    Ok(())
}

/// User names and passwords never leave in a `Host` or an `:authority` (RFC 9110, section 4.2.4).
fn without_user(authority: &Authority) -> Result<Authority, InvalidRequest> {
    match authority.as_str().rsplit_once('@') {
        None => Ok(authority.clone()),
        Some((_, host)) => host.parse().map_err(|_| InvalidRequest::Authority),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, host: Option<&'static str>) -> Request<()> {
        let mut request = Request::new(());
        *request.uri_mut() = uri.parse().unwrap();
        if let Some(host) = host {
            request.headers_mut().insert(header::HOST, HeaderValue::from_static(host));
        }
        request
    }

    #[test]
    fn the_uri_is_asked_first_then_the_header() {
        let named = |uri, host| named_authority(&request(uri, host)).unwrap();
        assert_eq!(named("http://a:1/x", Some("b")).unwrap(), "a:1");
        assert_eq!(named("/x", Some("b:2")).unwrap(), "b:2");
        assert_eq!(named("/x", None), None);
        assert_eq!(named("http://user:secret@a:1/x", None).unwrap(), "a:1");
        assert!(named_authority(&request("/x", Some("a b"))).is_err());
    }

    #[test]
    fn a_path_becomes_an_absolute_uri() {
        for (uri, expected) in [
            ("/x?y=1", "http://a/x?y=1"),
            ("http://b/x", "http://a/x"),
            ("http://b", "http://a/"),
            ("/", "http://a/"),
        ] {
            let mut request = request(uri, None);
            set_uri(&mut request, Scheme::HTTP, Authority::from_static("a")).unwrap();
            assert_eq!(request.uri(), expected);
        }
    }

    #[test]
    fn the_host_header_stays_logical() {
        let host = |uri, host| {
            let mut request = request(uri, host);
            set_host(&mut request, &Host::parse("default").unwrap()).unwrap();
            request.headers()[header::HOST].clone()
        };
        assert_eq!(host("http://me@a:1/", Some("b")), "a:1");
        assert_eq!(host("/", Some("b")), "b");
        assert_eq!(host("/", None), "default");
    }

    #[test]
    fn every_address_has_an_authority() {
        for (address, expected) in
            [("[::1]:80", "[::1]:80"), ("a_b.c:1", "a_b.c:1"), ("unix:/run/a.sock", "localhost")]
        {
            assert_eq!(Host::of(&address.parse().unwrap()).authority, expected);
        }
    }
}
