//! The body of a response, in flight until it ends.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use evenkeel_core::{attempt::Attempt, outcome::Outcome};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::{
    classify::{Classification, Classify, StatusClassifier},
    traffic::ThrottleMax,
};

pin_project! {
    /// The body of a response, which keeps its attempt in flight until it ends or is dropped.
    ///
    /// It ends with its last frame, its trailers or its error, and reports the attempt's outcome once. If the
    /// body is dropped before, the outcome is that of the head. If only the end decides (a gRPC status in
    /// trailers), the attempt counts as cancelled.
    ///
    /// By default it is empty and belongs to no attempt, for layers above that answer without an endpoint.
    pub struct ResponseBody<R, C: Classify = StatusClassifier> {
        // `None` if there is nothing to read.
        #[pin]
        inner: Option<R>,
        pending: Option<Pending<C>>,
        reads_reports: bool,
    }
}

impl<R: Body, C: Classify> ResponseBody<R, C> {
    /// A body of an attempt that has ended.
    pub(crate) fn ended(inner: R) -> Self {
        Self { inner: Some(inner), ..Self::default() }
    }

    /// A body that ends its attempt when it ends.
    pub(crate) fn tracked(inner: R, pending: Pending<C>) -> Self {
        if inner.is_end_stream() {
            pending.end(None);
            return Self::ended(inner);
        }
        Self { inner: Some(inner), pending: Some(pending), reads_reports: false }
    }

    /// Looks in the trailers for a report of the endpoint's load.
    pub(crate) fn reading_reports(mut self) -> Self {
        self.reads_reports = true;
        self
    }
}

impl<R, C> Body for ResponseBody<R, C>
where
    R: Body,
    C: Classify,
{
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        let this = self.project();
        let Some(mut inner) = this.inner.as_pin_mut() else { return Poll::Ready(None) };
        let frame = ready!(inner.as_mut().poll_frame(cx));
        if this.pending.is_none() {
            return Poll::Ready(frame);
        }
        match &frame {
            Some(Ok(frame)) => {
                if *this.reads_reports
                    && let (Some(pending), Some(trailers)) = (&*this.pending, frame.trailers_ref())
                {
                    pending.report(trailers);
                }
                if frame.is_trailers() || inner.is_end_stream() {
                    end(this.pending, frame.trailers_ref());
                }
            }
            Some(Err(_)) => {
                if let Some(pending) = this.pending.take() {
                    pending.fail();
                }
            }
            None => end(this.pending, None),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<R, C: Classify> Default for ResponseBody<R, C> {
    fn default() -> Self {
        Self { inner: None, pending: None, reads_reports: false }
    }
}

impl<R: fmt::Debug, C: Classify> fmt::Debug for ResponseBody<R, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("inner", &self.inner)
            .field("in_flight", &self.pending.is_some())
            .finish()
    }
}

fn end<C: Classify>(pending: &mut Option<Pending<C>>, trailers: Option<&http::HeaderMap>) {
    if let Some(pending) = pending.take() {
        pending.end(trailers);
    }
}

/// Passes on the load that the endpoint reported in these headers or trailers.
pub(crate) fn report(attempt: &Attempt, headers: &http::HeaderMap) {
    #[cfg(feature = "orca")]
    if let Some(report) = crate::load::read_any(headers) {
        attempt.report_load(&report);
    }
    #[cfg(not(feature = "orca"))]
    let _ = (attempt, headers);
}

/// An attempt in flight; `None` once its outcome was reported.
pub(crate) struct Pending<C: Classify>(Option<(Attempt, Classification<C::End>)>, ThrottleMax);

impl<C: Classify> Pending<C> {
    pub(crate) fn new(
        attempt: Attempt,
        verdict: Classification<C::End>,
        max_throttle: ThrottleMax,
    ) -> Self {
        Self(Some((attempt, verdict)), max_throttle)
    }

    fn end(mut self, trailers: Option<&http::HeaderMap>) {
        if let Some((attempt, verdict)) = self.0.take() {
            attempt.finish(match verdict {
                Classification::Reached(outcome) => outcome,
                Classification::AtEnd(end) => self.1.bound(C::end(end, trailers)),
            });
        }
    }

    fn report(&self, trailers: &http::HeaderMap) {
        if let Some((attempt, _)) = &self.0 {
            report(attempt, trailers);
        }
    }

    fn fail(mut self) {
        if let Some((attempt, _)) = self.0.take() {
            attempt.finish(Outcome::Failure);
        }
    }
}

impl<C: Classify> Drop for Pending<C> {
    fn drop(&mut self) {
        // A caller that reads only the status drops the body: the outcome is what it has seen.
        if let Some((attempt, Classification::Reached(outcome))) = self.0.take() {
            attempt.finish(outcome);
        }
    }
}
