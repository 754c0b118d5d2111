//! What a balancer reads from HTTP requests and responses.

use std::{fmt, sync::Arc};

use evenkeel_core::{
    attempt::Attempt,
    observe::Fault,
    outcome::Outcome,
    traffic::{Hints, Traffic, Tried},
};
use http::{Request, Response, StatusCode};
use http_body::Body;

use crate::{
    body::ResponseBody,
    classify::{Classify, StatusClassifier, Verdict},
    hash_by::{HashBy, RequestHead},
    hints,
};

/// Until when a request counts as in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InFlight {
    /// Until the head of the response is there.
    ///
    /// A failure after that is not seen: not a body that is cut, not a gRPC status in trailers. For
    /// callers who keep responses around without reading them.
    Head,
    /// Until the body of the response has ended, failed or been dropped.
    ///
    /// The default: an endpoint is busy until then, and policies that count requests in flight would
    /// otherwise prefer the one that is drowning in downloads.
    #[default]
    Body,
}

/// Reads hints from request extensions, and outcomes from responses.
///
/// A request may carry [`HashKey`](crate::HashKey), [`Prefer`](crate::Prefer),
/// [`Exclude`](crate::Exclude) and core's [`Tried`](evenkeel_core::traffic::Tried) in its extensions.
/// [`HashBy`] reads a hash from what else it says. [`StatusClassifier`] tells what counts as a failure. Latency is measured until the head of the
/// response in either case.
///
/// ```
/// use evenkeel_core::traffic::{Traffic, Tried};
/// use evenkeel_http::{Exclude, HashKey, HttpTraffic, Prefer};
///
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(HashKey::of("alice"));
/// request.extensions_mut().insert(Prefer(vec!["10.0.0.1:80".parse().unwrap()]));
/// request.extensions_mut().insert(Exclude(vec!["10.0.0.2:80".parse().unwrap()]));
/// request.extensions_mut().insert(Tried::default());
///
/// let hints = <HttpTraffic as Traffic<_, http::Response<String>, std::io::Error>>::hints(
///     &HttpTraffic::new(),
///     &request,
/// );
/// assert_eq!(hints.hash, Some(HashKey::of("alice").0));
/// assert_eq!(hints.prefer.len(), 1);
/// ```
#[derive(Clone, Debug, Default)]
pub struct HttpTraffic<C = StatusClassifier> {
    in_flight: InFlight,
    classifier: C,
    hash_by: Option<Arc<HashBy>>,
}

impl HttpTraffic {
    /// Classifies by status, and counts in flight until the end of the body.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl<C> HttpTraffic<C> {
    /// Sets until when a request counts as in flight. Default [`InFlight::Body`].
    #[must_use]
    pub fn in_flight(mut self, in_flight: InFlight) -> Self {
        self.in_flight = in_flight;
        self
    }

    /// Sets what counts as a failure. Default [`StatusClassifier`].
    #[must_use]
    pub fn classify<D: Classify>(self, classifier: D) -> HttpTraffic<D> {
        HttpTraffic { in_flight: self.in_flight, classifier, hash_by: self.hash_by }
    }

    /// Sets what requests are hashed by that have no [`HashKey`](crate::HashKey). Default nothing.
    #[must_use]
    pub fn hash_by(mut self, hash_by: HashBy) -> Self {
        self.hash_by = Some(Arc::new(hash_by));
        self
    }
}

impl<B, R, E, C> Traffic<Request<B>, Response<R>, E> for HttpTraffic<C>
where
    R: Body,
    E: fmt::Display + 'static,
    C: Classify,
{
    type Response = Response<ResponseBody<R, C>>;

    fn hints<'a>(&self, request: &'a Request<B>) -> Hints<'a> {
        let mut hints = hints::read(request.extensions());
        if let (None, Some(by)) = (hints.hash, &self.hash_by) {
            hints.hash = by.hash(RequestHead::of(request));
        }
        hints
    }

    // Asked of every request, and nothing need be hashed for it.
    fn tried<'a>(&self, request: &'a Request<B>) -> Option<&'a Tried> {
        request.extensions().get()
    }

    fn finish(
        &self,
        mut attempt: Attempt,
        result: Result<Response<R>, E>,
    ) -> Result<Self::Response, E> {
        let response = match result {
            Ok(response) => response,
            Err(error) => {
                attempt.blame(Fault::Local);
                attempt.finish(self.classifier.error(&error));
                return Err(error);
            }
        };
        let verdict = self.classifier.response(&response);
        attempt.responded();
        if is_gateways_fault(response.status()) {
            attempt.blame(Fault::Gateway);
        }
        Ok(match self.in_flight {
            InFlight::Body => response.map(|body| ResponseBody::tracked(body, attempt, verdict)),
            InFlight::Head => {
                attempt.finish(match verdict {
                    Verdict::Reached(outcome) => outcome,
                    Verdict::AtEnd(_) => Outcome::Success,
                });
                response.map(ResponseBody::ended)
            }
        })
    }
}

/// Whether the endpoint says that not itself failed, but what stands behind it.
fn is_gateways_fault(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}
