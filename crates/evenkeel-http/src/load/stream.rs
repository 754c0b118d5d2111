//! Reports out of band: the server's half of `OpenRcaService`.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body::Frame;
use hyper::body::Bytes;
use prost::Message;
use tokio::time::{Sleep, sleep};

use super::{LoadMeter, binary};

/// The path of the method.
pub(crate) const STREAM: &str = "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics";

/// The interval of reports. The interval in the request is not read.
///
/// By default gRPC's servers report every 30 seconds at most, and clients ask for ten. A second costs
/// little, and weights take effect at that interval.
const EVERY: Duration = Duration::from_secs(1);

/// An endless stream of reports.
pub(super) struct Reports {
    meter: LoadMeter,
    next: Option<Pin<Box<Sleep>>>,
}

impl Reports {
    pub(super) fn new(meter: LoadMeter) -> Self {
        Self { meter, next: None }
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Frame<Bytes>> {
        // The first report at once.
        if let Some(next) = &mut self.next {
            ready!(next.as_mut().poll(cx));
        }
        self.next = Some(Box::pin(sleep(EVERY)));
        let message = binary::message(&self.meter.report()).encode_to_vec();
        let length = u32::try_from(message.len()).expect("a report of less than 4 GiB");
        let frame = [&[0][..], &length.to_be_bytes(), &message].concat();
        Poll::Ready(Frame::data(frame.into()))
    }
}
