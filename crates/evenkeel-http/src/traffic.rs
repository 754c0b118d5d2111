//! What a balancer reads from HTTP requests and responses.

use std::{fmt, sync::Arc, time::Duration};

use evenkeel_core::{
    attempt::Attempt,
    observe::Fault,
    outcome::Outcome,
    traffic::{Hints, Traffic, Tried},
};
use http::{Request, Response, StatusCode};
use http_body::Body;

use crate::{
    body::{self, Pending, ResponseBody},
    classify::{self, Classification, Classify, StatusClassifier},
    delay,
    hash_by::{HashBy, RequestHead},
    hints::{self, Untimed},
    tunnel::Tunnel,
};

/// How long a request counts as in flight.
///
/// In both cases an upgraded connection, or a tunnel of `CONNECT`, counts until both its directions have
/// ended or it is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InFlight {
    /// Until the head of the response arrives.
    ///
    /// Later failures are not seen, such as a body that is cut or a gRPC status in trailers. For callers
    /// that keep responses without reading them.
    Head,
    /// Until the body of the response has ended, failed or been dropped.
    ///
    /// The default: an endpoint is busy until then. Otherwise policies that count requests in flight
    /// would prefer an endpoint that is overloaded with downloads.
    #[default]
    Body,
}

/// Reads hints from request extensions, and outcomes from responses.
///
/// A request may carry [`HashKey`](crate::HashKey), [`Subset`](crate::Subset), [`Prefer`](crate::Prefer),
/// [`Exclude`](crate::Exclude) and core's [`Tried`](evenkeel_core::traffic::Tried) in its extensions. It may
/// also carry a [`Why`](evenkeel_core::why::Why), which comes back in the response's extensions and says how the
/// endpoint was chosen. [`HashBy`] computes a hash from the rest of the request. [`StatusClassifier`] decides
/// what counts as a failure. Latency always ends with the head of the response, so long bodies and streams do
/// not count. A request with [`Untimed`](crate::Untimed) in its extensions is not timed. The delay that a
/// server asks for in a 429, a 503 or a gRPC status counts as latency.
///
/// ```
/// use evenkeel::core::traffic::{Traffic, Tried};
/// use evenkeel::http::{Exclude, HashKey, HttpTraffic, Prefer};
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
    max_throttle: ThrottleMax,
    classifier: C,
    reads_reports: bool,
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
    /// Sets how long a request counts as in flight. Default: [`InFlight::Body`].
    #[must_use]
    pub fn in_flight(mut self, in_flight: InFlight) -> Self {
        self.in_flight = in_flight;
        self
    }

    /// Sets the longest delay that an endpoint may ask for. Default: 5 minutes.
    ///
    /// That is the delay in a 429, a 503 or a gRPC status. It counts as latency, and layers that heed it
    /// close gates for that long. Longer delays count as this one: a header that is wrong by a factor must
    /// not take an endpoint out for days.
    #[must_use]
    pub fn max_throttle(mut self, max_throttle: Duration) -> Self {
        self.max_throttle = ThrottleMax(max_throttle);
        self
    }

    /// Reads the load that endpoints report, in any form of ORCA, for a policy that uses it.
    ///
    /// It looks in the head and the trailers of each response, which costs one or two header look-ups.
    /// Default: off.
    #[cfg(feature = "orca")]
    #[must_use]
    pub fn load_reports(mut self) -> Self {
        self.reads_reports = true;
        self
    }

    /// Sets what counts as a failure. Default: [`StatusClassifier`].
    #[must_use]
    pub fn classify<D: Classify>(self, classifier: D) -> HttpTraffic<D> {
        HttpTraffic {
            in_flight: self.in_flight,
            max_throttle: self.max_throttle,
            classifier,
            reads_reports: self.reads_reports,
            hash_by: self.hash_by,
        }
    }

    /// Sets the hash of requests without a [`HashKey`](crate::HashKey). Default: none.
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

    // Called for every request, so it does not compute a hash.
    fn tried<'a>(&self, request: &'a Request<B>) -> Option<&'a Tried> {
        request.extensions().get()
    }

    fn is_untimed(&self, request: &Request<B>) -> bool {
        request.extensions().get::<Untimed>().is_some()
    }

    fn finish(
        &self,
        mut attempt: Attempt,
        result: Result<Response<R>, E>,
    ) -> Result<Self::Response, E> {
        let mut response = match result {
            Ok(response) => response,
            Err(error) => {
                attempt.blame(Fault::Local);
                if classify::turns_away(&error) {
                    attempt.turned_away();
                }
                attempt.finish(self.classifier.error(&error));
                return Err(error);
            }
        };
        let max_throttle = self.max_throttle;
        let verdict = match self.classifier.response(&response) {
            Classification::Reached(outcome) => {
                Classification::Reached(max_throttle.bound(outcome))
            }
            to_come => to_come,
        };
        attempt.stop_clock();
        let reads_reports = self.reads_reports && attempt.wants_report();
        if reads_reports {
            body::report(&attempt, response.headers());
        }
        if is_gateways_fault(response.status()) {
            attempt.blame(Fault::Gateway);
            // A failure that says when to try again costs that delay, as a 429 does.
            if let Some(delay) = delay::retry_after(response.headers()) {
                attempt.record_throttling(delay.min(max_throttle.0));
            }
        }
        // A gRPC response that has begun counts as an answer, with any status at its end.
        attempt.judge_trial(match verdict {
            Classification::Reached(outcome) => outcome,
            Classification::AtEnd(_) => Outcome::Success,
        });
        if let Some(tunnel) = Tunnel::of_response(response.status(), response.extensions_mut()) {
            // A tunnel that has ended returns it, and dropping it reports the outcome.
            drop(tunnel.hold(Pending::<C>::new(attempt, verdict, max_throttle)));
            return Ok(response.map(ResponseBody::ended));
        }
        Ok(match self.in_flight {
            InFlight::Body => response.map(|body| {
                let body =
                    ResponseBody::tracked(body, Pending::new(attempt, verdict, max_throttle));
                if reads_reports { body.reading_reports() } else { body }
            }),
            InFlight::Head => {
                attempt.finish(match verdict {
                    Classification::Reached(outcome) => outcome,
                    Classification::AtEnd(_) => Outcome::Success,
                });
                response.map(ResponseBody::ended)
            }
        })
    }
}

/// The longest delay for which a server that throttles is believed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThrottleMax(Duration);

impl ThrottleMax {
    pub(crate) fn bound(self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Throttled(delay) => Outcome::Throttled(delay.map(|delay| delay.min(self.0))),
            outcome => outcome,
        }
    }
}

impl Default for ThrottleMax {
    fn default() -> Self {
        Self(delay::MAX_DELAY)
    }
}

/// Whether the endpoint says that what stands behind it failed, not itself.
fn is_gateways_fault(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}
