//! What a balancer reads from HTTP requests and responses.

use std::fmt;

use evenkeel_core::{
    attempt::Attempt,
    observe::Fault,
    outcome::Outcome,
    traffic::{Hints, Traffic},
};
use http::{Request, Response, StatusCode};
use http_body::Body;

use crate::{
    body::ResponseBody,
    classify::{Classify, StatusClassifier, Verdict},
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
/// A request may carry [`HashKey`](crate::HashKey), [`Subset`](crate::Subset), [`Prefer`](crate::Prefer),
/// [`Exclude`](crate::Exclude) and core's [`Tried`](evenkeel_core::traffic::Tried) in its extensions, and a
/// [`Why`](evenkeel_core::why::Why), which comes back in the response's and tells how the endpoint was chosen.
/// [`StatusClassifier`] tells what counts as a failure. Latency is measured until the head of the
/// response in either case.
///
/// ```
/// use evenkeel_core::traffic::{Traffic, Tried};
/// use evenkeel_http::{Exclude, HashKey, HttpTraffic, Prefer};
///
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(HashKey(42));
/// request.extensions_mut().insert(Prefer(vec!["10.0.0.1:80".parse().unwrap()]));
/// request.extensions_mut().insert(Exclude(vec!["10.0.0.2:80".parse().unwrap()]));
/// request.extensions_mut().insert(Tried::default());
///
/// let hints = <HttpTraffic as Traffic<_, http::Response<String>, std::io::Error>>::hints(
///     &HttpTraffic::new(),
///     &request,
/// );
/// assert_eq!(hints.hash, Some(42));
/// assert_eq!(hints.prefer.len(), 1);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpTraffic<C = StatusClassifier> {
    in_flight: InFlight,
    classifier: C,
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
        HttpTraffic { in_flight: self.in_flight, classifier }
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
        hints::read(request.extensions())
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
