//! What is kept of a call over HTTP, and how it is sent again.

use std::fmt;

use evenkeel_core::{
    deadline::CallDeadline,
    retry::{Next, Replay},
    time::Timestamp,
    traffic::Tried,
};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use http_body::Body;

use super::{
    body::{ReplayBody, Replayed},
    rules::HttpRetry,
};
use crate::{classify::is_grpc, deadline::set_remaining};

const GRPC_PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// Request extension: whether the request may safely be processed more than once.
///
/// Without it the method decides: `GET`, `HEAD`, `OPTIONS`, `TRACE`, `PUT` and `DELETE` are idempotent
/// (RFC 9110, section 9.2.2), so a gRPC call is not. With `Idempotent(false)`, the rules of
/// [`HttpRetry::grpc`] do not repeat it either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotent(pub bool);

/// Request extension: how many attempts of the call were made before this one. The first does not have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreviousAttempts(pub u32);

/// What is kept of a call to send its request again.
pub struct HttpCall<B> {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    extensions: Extensions,
    body: Replayed<B>,
    is_idempotent: bool,
    /// Whether it is repeated if the service was unavailable, even if it is not idempotent.
    repeats_unavailable: bool,
    /// Whether the last attempt found the service unavailable, in gRPC's sense.
    pub(super) is_unavailable: bool,
    deadline: Option<CallDeadline>,
}

impl<B: Body> Replay<Request<B>> for HttpRetry {
    type Call = HttpCall<B>;
    type Request = Request<ReplayBody<B>>;

    fn begin(&self, mut request: Request<B>) -> (HttpCall<B>, Self::Request) {
        if request.extensions().get::<Tried>().is_none() {
            request.extensions_mut().insert(Tried::default());
        }
        let said = request.extensions().get::<Idempotent>().copied();
        let is_idempotent = match said {
            Some(Idempotent(is_idempotent)) => is_idempotent,
            None => self.is_all_idempotent || request.method().is_idempotent(),
        };
        let repeats_unavailable =
            self.repeats_unavailable && said.is_none() && is_grpc(request.headers());
        let (head, body) = request.into_parts();
        let (body, replayed) = ReplayBody::new(body, self.max_body);
        let call = HttpCall {
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            headers: head.headers.clone(),
            extensions: head.extensions.clone(),
            body: replayed,
            is_idempotent,
            repeats_unavailable,
            is_unavailable: false,
            deadline: head.extensions.get::<CallDeadline>().copied(),
        };
        (call, Request::from_parts(head, body))
    }

    fn may_repeat(&self, call: &HttpCall<B>) -> bool {
        call.body.may_repeat()
    }

    fn may_double(&self, call: &HttpCall<B>) -> bool {
        call.body.may_double()
    }

    fn is_idempotent(&self, call: &HttpCall<B>) -> bool {
        call.is_idempotent || call.repeats_unavailable && call.is_unavailable
    }

    fn again(&self, call: &mut HttpCall<B>, next: Next) -> Option<Self::Request> {
        let mut request = Request::new(call.body.again());
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = call.uri.clone();
        *request.version_mut() = call.version;
        if next.is_last {
            *request.headers_mut() = std::mem::take(&mut call.headers);
            *request.extensions_mut() = std::mem::take(&mut call.extensions);
        } else {
            *request.headers_mut() = call.headers.clone();
            *request.extensions_mut() = call.extensions.clone();
        }
        request.extensions_mut().insert(PreviousAttempts(next.previous));
        if is_grpc(request.headers()) {
            let previous = HeaderValue::from(next.previous);
            request.headers_mut().insert(GRPC_PREVIOUS_ATTEMPTS, previous);
        }
        if let Some(remaining) = next.remaining {
            set_remaining(request.headers_mut(), remaining);
        }
        Some(request)
    }

    fn deadline(&self, call: &HttpCall<B>) -> Option<Timestamp> {
        call.deadline.map(|CallDeadline(at)| at)
    }
}

impl<B> fmt::Debug for HttpCall<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpCall")
            .field("method", &self.method)
            .field("uri", &self.uri)
            .field("is_idempotent", &self.is_idempotent)
            .finish_non_exhaustive()
    }
}
