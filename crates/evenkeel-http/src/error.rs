//! What can go wrong between here and an endpoint.

use std::{error::Error, fmt, sync::Arc};

use evenkeel_core::{BoxError, endpoint::Address, error::cause};
use evenkeel_net::ConnectTimeout;

/// No connection to an endpoint could be made. No part of the request was sent.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectError {
    /// Where the endpoint listens.
    pub address: Address,
    /// The cause: an `io::Error`, a TLS error, or a [`ConnectTimeout`].
    pub source: Arc<dyn Error + Send + Sync>,
}

impl ConnectError {
    pub(crate) fn new(address: Address, source: BoxError) -> Self {
        Self { address, source: source.into() }
    }

    /// Whether the endpoint did not answer in time. False if it refused.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        cause::<ConnectTimeout>(self).is_some()
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connecting to {} failed", self.address)
    }
}

impl Error for ConnectError {
    // Not derived: that would return the `Arc`, which hides the type of the error inside.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

/// A request was sent, or may have been sent, to an endpoint, and no response came.
#[derive(Debug, thiserror::Error)]
#[error("the request to {address} failed")]
#[non_exhaustive]
pub struct RequestError {
    /// Where the endpoint listens.
    pub address: Address,
    /// The cause.
    #[source]
    pub source: BoxError,
}

impl RequestError {
    pub(crate) fn new(address: Address, source: impl Into<BoxError>) -> Self {
        Self { address, source: source.into() }
    }

    /// Whether the request would have failed at any endpoint: its own body failed, or it is not valid in
    /// HTTP.
    #[must_use]
    pub fn is_callers_fault(&self) -> bool {
        let is_user = |error: &hyper::Error| error.is_user() && !is_abandoned(error);
        cause::<InvalidRequest>(self).is_some()
            || cause::<hyper::Error>(self).is_some_and(is_user)
            || cause::<h2::Error>(self).is_some_and(is_own_reset)
    }

    /// Whether the endpoint says that it did not process the request, so that sending it again is safe.
    ///
    /// Over HTTP/2 it refused the stream, or left it out of a `GOAWAY` (RFC 9113, section 8.7). That does not
    /// count against the endpoint's health; it counts as load.
    #[must_use]
    pub fn is_unprocessed(&self) -> bool {
        !self.is_callers_fault() && cause::<h2::Error>(self).is_some_and(is_left_undone)
    }

    /// Whether the runtime that drove the connection ended. The endpoint may have processed the request, and
    /// is not at fault.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        cause::<hyper::Error>(self).is_some_and(is_abandoned)
    }
}

/// The runtime that was connecting to an endpoint ended.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the runtime ended while connecting")]
pub(crate) struct RuntimeEnded;

/// hyper counts this among its user's errors, like those of bodies. Only the text of the error differs.
fn is_abandoned(error: &hyper::Error) -> bool {
    error.is_user()
        && error.source().is_some_and(|why| why.to_string() == "runtime dropped the dispatch task")
}

/// RFC 9113, section 8.7: a refused stream, or one above the last that a `GOAWAY` names, was not
/// processed, whatever the reason in that frame. h2 gives the frame only to such streams: the streams
/// that it names end with the connection.
pub(crate) fn is_left_undone(error: &h2::Error) -> bool {
    let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (is_refused || error.is_go_away())
}

/// Over HTTP/2, hyper resets the stream of a request when its body fails.
fn is_own_reset(error: &h2::Error) -> bool {
    error.is_reset() && !error.is_remote() && !error.is_library()
}

/// A request that cannot be sent to any endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidRequest {
    /// Neither the URI nor the `Host` header names a valid authority, or there are several `Host` headers.
    Authority,
    /// The URI cannot be completed with a scheme and an authority.
    Uri,
    /// The endpoint's address cannot be written in a URI, and the client needs one.
    Address,
    /// It has another transfer coding than `chunked`, or that more than once.
    TransferCoding,
    /// `Content-Length` is no number, or there are several that differ.
    ContentLength,
}

impl fmt::Display for InvalidRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Authority => "invalid or repeated Host header",
            Self::Address => "the client cannot connect to a Unix socket",
            Self::Uri => "the URI has neither a path nor an authority",
            Self::TransferCoding => "unsupported transfer coding of the request",
            Self::ContentLength => "invalid or conflicting Content-Length of the request",
        })
    }
}

impl Error for InvalidRequest {}

/// A response with an unclear end of its body. It is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidResponse {
    /// It has another transfer coding than `chunked`, or that more than once.
    TransferCoding,
    /// `Content-Length` is no number, or there are several that differ.
    ContentLength,
}

impl fmt::Display for InvalidResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TransferCoding => "unsupported transfer coding of the response",
            Self::ContentLength => "invalid or conflicting Content-Length of the response",
        })
    }
}

impl Error for InvalidResponse {}
