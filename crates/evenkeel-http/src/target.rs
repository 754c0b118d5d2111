//! The authority that a request names, and the URI that it is sent with.

use std::borrow::Cow;

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
        let authority: Authority = outgoing(text).parse().map_err(|_| InvalidRequest::Authority)?;
        let header =
            HeaderValue::from_str(authority.as_str()).map_err(|_| InvalidRequest::Authority)?;
        Ok(Self { authority, header })
    }

    /// The authority of an endpoint itself, for requests that name none.
    pub(crate) fn of(address: &Address) -> Self {
        // A Unix socket has no authority; this is the usual substitute.
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
///
/// # Errors
/// If there are several `Host` headers: two servers may use different ones (RFC 9112, section 3.2).
pub(crate) fn named_authority<B>(
    request: &Request<B>,
) -> Result<Option<Authority>, InvalidRequest> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(InvalidRequest::Authority);
    }
    let text = match (request.uri().authority(), host) {
        (Some(authority), _) => match outgoing(authority.as_str()) {
            Cow::Borrowed(text) if text.len() == authority.as_str().len() => {
                return Ok(Some(authority.clone()));
            }
            text => text,
        },
        (None, Some(host)) => outgoing(host.to_str().map_err(|_| InvalidRequest::Authority)?),
        (None, None) => return Ok(None),
    };
    text.parse().map(Some).map_err(|_| InvalidRequest::Authority)
}

/// Sets `Host` to what the request [names](named_authority), else to `default`.
pub(crate) fn set_host<B>(
    request: &mut Request<B>,
    named: Option<&Authority>,
    default: &Host,
) -> Result<(), InvalidRequest> {
    let host = match (named, request.headers().get(header::HOST)) {
        (Some(named), Some(host)) if host == named.as_str() => return Ok(()),
        (Some(named), _) => {
            HeaderValue::from_str(named.as_str()).map_err(|_| InvalidRequest::Authority)?
        }
        (None, _) => default.header.clone(),
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

/// The part of an authority that may be sent in `Host` or `:authority`: no user name and no password
/// (RFC 9110, section 4.2.4), and no zone, which names an interface of this machine (RFC 6874, section 4).
fn outgoing(authority: &str) -> Cow<'_, str> {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.split_once('%').zip(host.rfind(']')) {
        Some(((address, _), end)) if address.len() < end && address.starts_with('[') => {
            Cow::Owned([address, &host[end..]].concat())
        }
        _ => Cow::Borrowed(host),
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
        assert_eq!(named("/x", Some("[fe80::1%eth0]:2")).unwrap(), "[fe80::1]:2");
        assert_eq!(named("/x", Some("[fe80::1%25eth0]")).unwrap(), "[fe80::1]");
        assert!(named_authority(&request("/x", Some("a b"))).is_err());
        assert!(named_authority(&request("/x", Some("a%b"))).is_err());
    }

    #[test]
    fn of_two_host_headers_none_is_believed() {
        for uri in ["/x", "http://a/x"] {
            let mut request = request(uri, Some("a"));
            request.headers_mut().append(header::HOST, HeaderValue::from_static("a"));
            assert_eq!(named_authority(&request), Err(InvalidRequest::Authority), "{uri}");
        }
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
            let named = named_authority(&request).unwrap();
            set_host(&mut request, named.as_ref(), &Host::parse("default").unwrap()).unwrap();
            request.headers()[header::HOST].clone()
        };
        assert_eq!(host("http://me@a:1/", Some("b")), "a:1");
        assert_eq!(host("/", Some("b")), "b");
        assert_eq!(host("/", None), "default");
    }

    #[test]
    fn every_address_has_an_authority() {
        for (address, expected) in [
            ("[::1]:80", "[::1]:80"),
            ("[fe80::1%2]:80", "[fe80::1]:80"),
            ("[fe80::1%eth0]:80", "[fe80::1]:80"),
            ("a_b.c:1", "a_b.c:1"),
            ("unix:/run/a.sock", "localhost"),
        ] {
            assert_eq!(Host::of(&address.parse().unwrap()).authority, expected);
        }
    }
}
