//! Looks for a gRPC status after the head of a response, before any message.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use evenkeel_core::BoxError;
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use crate::classify::is_grpc_to_come;

pin_project! {
    /// The response with its first frame, if it is a gRPC response and that came soon.
    pub struct Peek<R: Body> {
        // Taken when it is returned.
        response: Option<Response<R>>,
        max_wait: Duration,
        #[pin]
        timer: Option<Sleep>,
    }
}

impl<R: Body> Peek<R> {
    pub(super) fn new(response: Response<R>, max_wait: Duration) -> Self {
        Self { response: Some(response), max_wait, timer: None }
    }
}

impl<R: Body + Unpin> Future for Peek<R> {
    type Output = Result<Response<PeekedBody<R>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let response = this.response.as_mut().expect("a future is not polled after its end");
        let mut first = None;
        if is_grpc_to_come(response.status(), response.headers())
            && *this.max_wait != Duration::ZERO
        {
            match Pin::new(response.body_mut()).poll_frame(cx) {
                Poll::Ready(frame) => first = Some(frame),
                Poll::Pending => {
                    if this.timer.is_none() {
                        this.timer.set(Some(sleep(*this.max_wait)));
                    }
                    let timer = this.timer.as_mut().as_pin_mut().expect("set above");
                    if timer.poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
        let response = this.response.take().expect("there a moment ago");
        Poll::Ready(Ok(response.map(|inner| PeekedBody { first, inner: Some(inner) })))
    }
}

impl<R: Body> fmt::Debug for Peek<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peek").finish_non_exhaustive()
    }
}

pin_project! {
    /// The body of a response, the first frame of which may have been read ahead. By default it is empty.
    pub struct PeekedBody<R: Body> {
        first: Option<Option<Result<Frame<R::Data>, R::Error>>>,
        // `None` if there is nothing to read.
        #[pin]
        inner: Option<R>,
    }
}

impl<R: Body> PeekedBody<R> {
    /// The trailers, if the response has nothing else after its head.
    pub(super) fn trailers(&self) -> Option<&HeaderMap> {
        match &self.first {
            Some(Some(Ok(frame))) => frame.trailers_ref(),
            _ => None,
        }
    }
}

impl<R: Body> Body for PeekedBody<R> {
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        let this = self.project();
        match this.first.take() {
            Some(first) => Poll::Ready(first),
            None => this.inner.as_pin_mut().map_or(Poll::Ready(None), |inner| inner.poll_frame(cx)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.first {
            Some(Some(_)) => false,
            Some(None) => true,
            None => self.inner.as_ref().is_none_or(Body::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let Some(Some(Ok(first))) = &self.first else { return hint };
        let read = first.data_ref().map_or(0, |data| hyper::body::Buf::remaining(data) as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(read));
        }
        hint.set_lower(hint.lower().saturating_add(read));
        hint
    }
}

impl<R: Body> Default for PeekedBody<R> {
    fn default() -> Self {
        Self { first: None, inner: None }
    }
}

impl<R: Body> fmt::Debug for PeekedBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeekedBody")
            .field("is_peeked", &self.first.is_some())
            .finish_non_exhaustive()
    }
}
