//! What a response says about its endpoint.

use std::{any::Any, error::Error, fmt};

use evenkeel_core::{
    BoxError,
    error::{cause, is_of_this_host},
    outcome::Outcome,
};
use http::{HeaderMap, HeaderName, Response, StatusCode, header};

use crate::{
    delay,
    error::{RequestError, RuntimeEnded, is_left_undone},
    status::is_refused,
};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Decides the outcome of an attempt from its response or its error.
pub trait Classify: Clone + Send + Sync + 'static {
    /// The state kept until the response has ended.
    type End: Send + 'static;

    /// What the head of a response says.
    fn response<R>(&self, response: &Response<R>) -> Classification<Self::End>;

    /// What an error in place of a response says.
    fn error<E: fmt::Display + 'static>(&self, error: &E) -> Outcome;

    /// What the end of a response says, with its trailers if there were any.
    fn end(end: Self::End, trailers: Option<&HeaderMap>) -> Outcome;
}

/// What the head of a response says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Classification<End> {
    /// The outcome is known.
    Reached(Outcome),
    /// The end of the response decides.
    AtEnd(End),
}

/// Classifies by HTTP status, or by gRPC status for a gRPC response.
///
/// | HTTP status | outcome |
/// |---|---|
/// | 429 | throttled, for `Retry-After`: seconds, or a date |
/// | 5xx | failure |
/// | other | success: a 404 or a 401 is the request's fault |
///
/// A response is a gRPC response if its content type is `application/grpc` and its status is 200.
/// Then `grpc-status` decides, from the head if it is there (a response of trailers only), else from the
/// trailers:
///
/// | gRPC status | outcome |
/// |---|---|
/// | `UNKNOWN`, `DEADLINE_EXCEEDED`, `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS`, none, or not a code | failure |
/// | `RESOURCE_EXHAUSTED` | throttled, for `grpc-retry-pushback-ms` if that is not negative |
/// | `CANCELLED`, `UNIMPLEMENTED` | ignored: they depend on the caller and on the deployed version |
/// | other | success |
///
/// An error is a failure, unless it says nothing about the endpoint. These errors are ignored:
///
/// - the request itself is at fault: its body failed, or it cannot be sent at all;
/// - a layer of this process refused it, such as a limit;
/// - the endpoint says that it [did not process it](RequestError::is_unprocessed);
/// - this host [lacked a resource to connect](evenkeel_core::error::is_of_this_host), or the runtime that
///   drove the connection [ended](RequestError::is_abandoned).
#[derive(Clone, Copy, Debug, Default)]
pub struct StatusClassifier;

/// Marks a gRPC response with its status in the trailers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcTrailers(());

impl Classify for StatusClassifier {
    type End = GrpcTrailers;

    fn response<R>(&self, response: &Response<R>) -> Classification<GrpcTrailers> {
        let headers = response.headers();
        match response.status() {
            StatusCode::OK if is_grpc(headers) => match headers.get(GRPC_STATUS) {
                Some(_) => Classification::Reached(grpc_outcome(headers)),
                None => Classification::AtEnd(GrpcTrailers(())),
            },
            StatusCode::TOO_MANY_REQUESTS => {
                Classification::Reached(Outcome::Throttled(delay::retry_after(headers)))
            }
            status if status.is_server_error() => Classification::Reached(Outcome::Failure),
            _ => Classification::Reached(Outcome::Success),
        }
    }

    fn error<E: fmt::Display + 'static>(&self, error: &E) -> Outcome {
        if is_no_fault_of_the_endpoint(error) { Outcome::Ignored } else { Outcome::Failure }
    }

    fn end(_: GrpcTrailers, trailers: Option<&HeaderMap>) -> Outcome {
        grpc_end(trailers)
    }
}

/// What the end of a gRPC response says.
pub(crate) fn grpc_end(trailers: Option<&HeaderMap>) -> Outcome {
    trailers.map_or(Outcome::Failure, grpc_outcome)
}

/// Whether it is a gRPC response with a status that is still to come.
pub(crate) fn is_grpc_to_come(status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::OK && is_grpc(headers) && !headers.contains_key(GRPC_STATUS)
}

/// The gRPC status, `None` if there is none or it is not a code.
pub(crate) fn grpc_status(trailers: &HeaderMap) -> Option<u32> {
    delay::number(trailers, &GRPC_STATUS)
}

/// Whether the content type is one of gRPC. gRPC-Web does not count: its status is in the body.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|content_type| content_type.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

fn grpc_outcome(trailers: &HeaderMap) -> Outcome {
    match grpc_status(trailers) {
        Some(1 | 12) => Outcome::Ignored,
        Some(8) => Outcome::Throttled(delay::pushback(trailers).flatten()),
        Some(0 | 3 | 5..=7 | 9..=11 | 16) => Outcome::Success,
        Some(u32::MIN..=u32::MAX) | None => Outcome::Failure,
    }
}

/// Whether the request would have failed at any endpoint, reached none, or was not processed.
fn is_no_fault_of_the_endpoint<E: 'static>(error: &E) -> bool {
    let Some(error) = readable(error) else { return false };
    let is_excused = |error: &RequestError| error.is_callers_fault() || error.is_abandoned();
    is_refused(error)
        || cause::<RequestError>(error).is_some_and(is_excused)
        || cause::<RuntimeEnded>(error).is_some()
        || is_turned_away(error)
}

/// Whether the request was not processed, at the endpoint or before it. Such an attempt ends at once, which
/// would make its endpoint look idle.
pub(crate) fn turns_away<E: 'static>(error: &E) -> bool {
    readable(error).is_some_and(is_turned_away)
}

fn is_turned_away(error: &(dyn Error + 'static)) -> bool {
    let is_callers_fault = cause::<RequestError>(error).is_some_and(RequestError::is_callers_fault);
    let is_left_undone = cause::<h2::Error>(error).is_some_and(is_left_undone);
    is_of_this_host(error) || is_left_undone && !is_callers_fault
}

/// The error type is generic, so that layers in between can choose it. These two types carry our errors.
fn readable<E: 'static>(error: &E) -> Option<&(dyn Error + 'static)> {
    let any: &dyn Any = error;
    match any.downcast_ref::<BoxError>() {
        Some(error) => Some(error.as_ref()),
        None => any.downcast_ref::<RequestError>().map(|error| error as _),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn response(status: u16, headers: &[(&'static str, &str)]) -> Response<()> {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        response.body(()).unwrap()
    }

    fn outcome(status: u16, headers: &[(&'static str, &str)]) -> Classification<GrpcTrailers> {
        StatusClassifier.response(&response(status, headers))
    }

    #[test]
    fn only_server_errors_fail_over_http() {
        for status in [100, 200, 204, 301, 400, 401, 404, 499] {
            assert_eq!(outcome(status, &[]), Classification::Reached(Outcome::Success), "{status}");
        }
        for status in [500, 501, 502, 503, 504, 599] {
            assert_eq!(outcome(status, &[]), Classification::Reached(Outcome::Failure), "{status}");
        }
    }

    #[test]
    fn a_refusal_by_a_layer_of_this_process_is_no_failure_of_the_endpoint() {
        use evenkeel_core::error::LimitReached;
        let refused: BoxError = LimitReached::new(7, Duration::ZERO).into();
        assert_eq!(StatusClassifier.error(&refused), Outcome::Ignored);
        let shed: BoxError = tower::load_shed::error::Overloaded::new().into();
        assert_eq!(StatusClassifier.error(&shed), Outcome::Ignored);
        let failed: BoxError = std::io::Error::other("down").into();
        assert_eq!(StatusClassifier.error(&failed), Outcome::Failure);
    }

    #[test]
    fn an_error_of_this_host_is_no_failure_of_the_endpoint() {
        use crate::error::ConnectError;
        let connecting = |kind: std::io::ErrorKind| -> BoxError {
            let source = std::io::Error::from(kind).into();
            ConnectError::new("10.0.0.1:80".parse().unwrap(), source).into()
        };
        let no_port = connecting(std::io::ErrorKind::AddrNotAvailable);
        assert_eq!(StatusClassifier.error(&no_port), Outcome::Ignored);
        assert!(turns_away(&no_port));
        let dead = connecting(std::io::ErrorKind::HostUnreachable);
        assert_eq!(StatusClassifier.error(&dead), Outcome::Failure);
        assert!(!turns_away(&dead));
    }

    #[test]
    fn too_many_requests_throttles_for_as_long_as_it_says() {
        let throttled = |delay| Classification::Reached(Outcome::Throttled(delay));
        assert_eq!(outcome(429, &[]), throttled(None));
        assert_eq!(outcome(429, &[("retry-after", "7")]), throttled(Some(Duration::from_secs(7))));
        assert_eq!(outcome(429, &[("retry-after", "-7")]), throttled(None));
        assert_eq!(outcome(429, &[("retry-after", "+7")]), throttled(None));
        let long_ago = outcome(429, &[("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT")]);
        assert_eq!(long_ago, throttled(Some(Duration::ZERO)));
    }

    #[test]
    fn grpc_status_decides_in_the_head_or_in_the_trailers() {
        let grpc = ("content-type", "application/grpc+proto");
        assert_eq!(outcome(200, &[grpc]), Classification::AtEnd(GrpcTrailers(())));
        assert_eq!(outcome(503, &[grpc]), Classification::Reached(Outcome::Failure));
        let grpc_web = ("content-type", "application/grpc-web+proto");
        assert_eq!(outcome(200, &[grpc_web]), Classification::Reached(Outcome::Success));
        for (status, expected) in [
            ("0", Outcome::Success),
            ("1", Outcome::Ignored),
            ("2", Outcome::Failure),
            ("4", Outcome::Failure),
            ("5", Outcome::Success),
            ("8", Outcome::Throttled(None)),
            ("12", Outcome::Ignored),
            ("14", Outcome::Failure),
            ("15", Outcome::Failure),
            ("16", Outcome::Success),
            ("17", Outcome::Failure),
            ("-1", Outcome::Failure),
            ("+0", Outcome::Failure),
            ("x", Outcome::Failure),
        ] {
            let head = response(200, &[grpc, ("grpc-status", status)]);
            assert_eq!(
                StatusClassifier.response(&head),
                Classification::Reached(expected),
                "{status}"
            );
            let end = StatusClassifier::end(GrpcTrailers(()), Some(head.headers()));
            assert_eq!(end, expected, "{status}");
        }
        assert_eq!(StatusClassifier::end(GrpcTrailers(()), None), Outcome::Failure);
    }

    #[test]
    fn pushback_tells_for_how_long() {
        let with = |pushback| {
            let head = response(200, &[("grpc-status", "8"), ("grpc-retry-pushback-ms", pushback)]);
            StatusClassifier::end(GrpcTrailers(()), Some(head.headers()))
        };
        assert_eq!(with("250"), Outcome::Throttled(Some(Duration::from_millis(250))));
        assert_eq!(with("-1"), Outcome::Throttled(None));
        assert_eq!(with("soon"), Outcome::Throttled(None));
    }

    #[test]
    fn an_error_of_any_type_is_a_failure() {
        assert_eq!(StatusClassifier.error(&std::io::Error::other("reset")), Outcome::Failure);
        let boxed: BoxError = "reset".into();
        assert_eq!(StatusClassifier.error(&boxed), Outcome::Failure);
    }
}
