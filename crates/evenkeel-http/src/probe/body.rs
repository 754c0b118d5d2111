//! The bodies of probes, sent in one piece, and of their answers, read up to a bound.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use evenkeel_core::BoxError;
use http_body::{Body, Frame, SizeHint};
use hyper::body::{Bytes, Incoming};

/// A body in one piece, or none.
#[derive(Debug, Default)]
pub(crate) struct Whole(Option<Bytes>);

impl Whole {
    pub(crate) fn new(bytes: impl Into<Bytes>) -> Self {
        Self(Some(bytes.into()))
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// The next frame of an answer, `None` at its end.
pub(crate) async fn frame(body: &mut Incoming) -> Option<Result<Frame<Bytes>, BoxError>> {
    let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
    frame.map(|frame| frame.map_err(Into::into))
}

/// The first bytes of an answer, and whether there were more than `max`.
pub(super) async fn read(mut body: Incoming, max: usize) -> Result<(Vec<u8>, bool), BoxError> {
    let mut bytes = Vec::new();
    while let Some(read) = frame(&mut body).await {
        let Ok(data) = read?.into_data() else { continue };
        let room = max - bytes.len();
        bytes.extend_from_slice(&data[..data.len().min(room)]);
        if room < data.len() {
            return Ok((bytes, true));
        }
    }
    Ok((bytes, false))
}
