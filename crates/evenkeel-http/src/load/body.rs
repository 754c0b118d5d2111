//! The response bodies of a server that reports its load.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use evenkeel_core::{
    load::{Arrival, LoadReport, ServerLoad},
    outcome::Outcome,
};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Bytes;
use pin_project_lite::pin_project;

use super::{LoadMeter, ReportForm, message};
use crate::classify::{self, Classify, StatusClassifier};

/// What the head of a response says about the outcome of the request.
#[derive(Clone, Copy)]
pub(super) enum HeadOutcome {
    Good,
    Bad,
    /// The gRPC status is in the trailers.
    ToCome,
}

impl HeadOutcome {
    pub(super) fn of<R>(response: &Response<R>) -> Self {
        match StatusClassifier.response(response) {
            classify::Classification::Reached(Outcome::Failure | Outcome::Throttled(_)) => {
                Self::Bad
            }
            classify::Classification::Reached(_) => Self::Good,
            classify::Classification::AtEnd(_) => Self::ToCome,
        }
    }

    /// Whether its latency counts as a sample.
    pub(super) fn is_good(self) -> bool {
        !matches!(self, Self::Bad)
    }

    pub(super) fn has_failed(self) -> Option<bool> {
        match self {
            Self::Good => Some(false),
            Self::Bad => Some(true),
            Self::ToCome => None,
        }
    }

    pub(super) fn is_to_come(self) -> bool {
        matches!(self, Self::ToCome)
    }

    /// Whether a report belongs in the trailers: gRPC looks for it there, and more is known by then.
    pub(super) fn is_for_trailers(self, form: ReportForm) -> bool {
        #[cfg(feature = "orca")]
        let is_binary = form == ReportForm::Binary;
        #[cfg(not(feature = "orca"))]
        let is_binary = form != ReportForm::Text;
        self.is_to_come() && is_binary
    }
}

/// The answer to a probe.
pub(super) enum Answer {
    Http(ServerLoad),
    Grpc(ServerLoad),
    #[cfg(feature = "orca")]
    Stream(LoadMeter),
}

impl Answer {
    pub(super) fn into_response<R>(self) -> Response<ReportLoadBody<R>> {
        match self {
            Self::Http(load) => {
                let report = LoadReport { server_load: Some(load), ..LoadReport::default() };
                let (name, value) = ReportForm::Text.header(&report);
                let text = Bytes::copy_from_slice(value.as_bytes());
                let mut response = Response::new(ReportLoadBody::told(Told::once(text, None)));
                let headers = response.headers_mut();
                headers.insert(name, value);
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                response
            }
            Self::Grpc(load) => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                grpc(Told::once(message::frame(load).into(), Some(trailers)))
            }
            #[cfg(feature = "orca")]
            Self::Stream(meter) => grpc(Told::Stream(super::stream::Reports::new(meter))),
        }
    }
}

fn grpc<R>(told: Told) -> Response<ReportLoadBody<R>> {
    let mut response = Response::new(ReportLoadBody::told(told));
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, grpc);
    response
}

/// A body that the layer itself answers with.
enum Told {
    Once {
        text: Option<Bytes>,
        trailers: Option<HeaderMap>,
    },
    #[cfg(feature = "orca")]
    Stream(super::stream::Reports),
}

impl Told {
    fn once(text: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self::Once { text: Some(text), trailers }
    }
}

/// A request, in flight until its response's body has ended.
struct Measured {
    _arrival: Option<Arrival>,
    /// The meter that counts its outcome, if that is still to come.
    meter: Option<LoadMeter>,
    /// The form of the report in the trailers, if there is one.
    form: Option<ReportForm>,
}

pin_project! {
    /// The body of a response that is measured, or of the answer to a probe.
    ///
    /// The request is in flight until the body has ended or is dropped. By default it is empty and belongs to
    /// no request.
    pub struct ReportLoadBody<R> {
        #[pin]
        inner: Option<R>,
        told: Option<Told>,
        measured: Option<Measured>,
    }
}

impl<R> ReportLoadBody<R> {
    fn told(told: Told) -> Self {
        Self { inner: None, told: Some(told), measured: None }
    }
}

impl<R: Body> ReportLoadBody<R> {
    pub(super) fn measured(
        inner: R,
        arrival: Option<Arrival>,
        meter: Option<LoadMeter>,
        form: Option<ReportForm>,
    ) -> Self {
        let measured = Measured { _arrival: arrival, meter, form };
        // A body that has ended already is no longer in flight.
        let measured = (!inner.is_end_stream()).then_some(measured);
        Self { inner: Some(inner), told: None, measured }
    }
}

impl<R: Body<Data = Bytes>> Body for ReportLoadBody<R> {
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        let this = self.project();
        let Some(mut inner) = this.inner.as_pin_mut() else {
            return match this.told {
                Some(Told::Once { text, trailers }) => {
                    let trailers = || trailers.take().map(Frame::trailers);
                    Poll::Ready(text.take().map(Frame::data).or_else(trailers).map(Ok))
                }
                #[cfg(feature = "orca")]
                Some(Told::Stream(reports)) => reports.poll_frame(cx).map(|frame| Some(Ok(frame))),
                None => Poll::Ready(None),
            };
        };
        let frame = ready!(inner.as_mut().poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) => Some(Ok(match frame.into_trailers() {
                Ok(mut trailers) => {
                    end(this.measured, Some(&mut trailers));
                    Frame::trailers(trailers)
                }
                Err(frame) => {
                    if inner.is_end_stream() {
                        end(this.measured, None);
                    }
                    frame
                }
            })),
            other => {
                end(this.measured, None);
                other
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        match (&self.inner, &self.told) {
            (Some(inner), _) => inner.is_end_stream(),
            (None, Some(Told::Once { text, trailers })) => text.is_none() && trailers.is_none(),
            #[cfg(feature = "orca")]
            (None, Some(Told::Stream(_))) => false,
            (None, None) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.inner, &self.told) {
            (Some(inner), _) => inner.size_hint(),
            (None, Some(Told::Once { text, .. })) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            #[cfg(feature = "orca")]
            (None, Some(Told::Stream(_))) => SizeHint::default(),
            (None, None) => SizeHint::with_exact(0),
        }
    }
}

/// Counts the outcome of the request, adds a report if one is due, and ends its time in flight.
fn end(measured: &mut Option<Measured>, trailers: Option<&mut HeaderMap>) {
    let Some(measured) = measured.take() else { return };
    if let Some(meter) = &measured.meter {
        let outcome = classify::grpc_end(trailers.as_deref());
        meter.count(!matches!(outcome, Outcome::Success | Outcome::Ignored));
        if let (Some(form), Some(trailers)) = (measured.form, trailers) {
            let (name, value) = form.header(&meter.report());
            trailers.insert(name, value);
        }
    }
}

impl<R> Default for ReportLoadBody<R> {
    fn default() -> Self {
        Self { inner: None, told: None, measured: None }
    }
}

impl<R: fmt::Debug> fmt::Debug for ReportLoadBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReportLoadBody")
            .field("inner", &self.inner)
            .field("in_flight", &self.measured.is_some())
            .finish_non_exhaustive()
    }
}
