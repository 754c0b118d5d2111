//! Classifiers of tower-http, for what counts as a failure.

use std::fmt;

use evenkeel_core::outcome::Outcome;
use http::{HeaderMap, Response};
use tower_http::classify::{ClassifiedResponse, ClassifyEos, ClassifyResponse};

use crate::classify::{Classification, Classify, StatusClassifier};

/// Lets a classifier of tower-http decide what counts as a failure.
///
/// It alone decides on responses: what it does not call a failure is a success, and nothing is throttled.
/// It sees only the response, so a `MakeClassifier` that looks at the request cannot be used. Errors are
/// read as [`StatusClassifier`] reads them.
///
/// ```
/// use evenkeel::http::{HttpConnector, TowerClassifier};
/// use tower_http::classify::StatusInRangeAsFailures;
///
/// let classifier = TowerClassifier::new(StatusInRangeAsFailures::new(400..=599));
/// let connector: HttpConnector<String, _> = HttpConnector::new().classify(classifier);
/// ```
#[derive(Clone, Debug)]
pub struct TowerClassifier<C>(C);

impl<C: ClassifyResponse + Clone> TowerClassifier<C> {
    /// Decides as `classifier` does. Each response gets a clone of it.
    #[must_use]
    pub fn new(classifier: C) -> Self {
        Self(classifier)
    }
}

impl<C> Classify for TowerClassifier<C>
where
    C: ClassifyResponse + Clone + Send + Sync + 'static,
    C::ClassifyEos: Send + 'static,
{
    type End = C::ClassifyEos;

    fn response<R>(&self, response: &Response<R>) -> Classification<C::ClassifyEos> {
        match self.0.clone().classify_response(response) {
            ClassifiedResponse::Ready(result) => Classification::Reached(outcome(&result)),
            ClassifiedResponse::RequiresEos(end) => Classification::AtEnd(end),
        }
    }

    /// tower-http calls every error a failure, including those that no endpoint caused.
    fn error<E: fmt::Display + 'static>(&self, error: &E) -> Outcome {
        StatusClassifier.error(error)
    }

    fn end(end: C::ClassifyEos, trailers: Option<&HeaderMap>) -> Outcome {
        outcome(&end.classify_eos(trailers))
    }
}

fn outcome<F>(result: &Result<(), F>) -> Outcome {
    if result.is_ok() { Outcome::Success } else { Outcome::Failure }
}

#[cfg(test)]
mod tests {
    use tower_http::classify::{GrpcErrorsAsFailures, ServerErrorsAsFailures};

    use super::*;

    fn head(status: u16) -> Response<()> {
        Response::builder().status(status).body(()).unwrap()
    }

    #[test]
    fn the_head_decides_where_the_classifier_says_so() {
        let classifier = TowerClassifier::new(ServerErrorsAsFailures::new());
        let reached = |status| match classifier.response(&head(status)) {
            Classification::Reached(outcome) => outcome,
            Classification::AtEnd(_) => panic!("the head decides"),
        };
        assert_eq!(reached(500), Outcome::Failure);
        assert_eq!(reached(429), Outcome::Success);
    }

    #[test]
    fn an_error_that_no_endpoint_caused_is_ignored() {
        use evenkeel_core::{BoxError, error::FailedFast};
        let classifier = TowerClassifier::new(ServerErrorsAsFailures::new());
        let refused: BoxError = FailedFast::new(std::time::Duration::ZERO).into();
        assert_eq!(classifier.error(&refused), Outcome::Ignored);
        let failed: BoxError = std::io::Error::other("down").into();
        assert_eq!(classifier.error(&failed), Outcome::Failure);
    }

    #[test]
    fn the_trailers_decide_where_the_classifier_says_so() {
        type Grpc = TowerClassifier<GrpcErrorsAsFailures>;
        let end = |status: &'static str| {
            let classifier = Grpc::new(GrpcErrorsAsFailures::new());
            let Classification::AtEnd(end) = classifier.response(&head(200)) else {
                panic!("the trailers decide")
            };
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", status.parse().unwrap());
            Grpc::end(end, Some(&trailers))
        };
        assert_eq!(end("0"), Outcome::Success);
        assert_eq!(end("14"), Outcome::Failure);
    }
}
