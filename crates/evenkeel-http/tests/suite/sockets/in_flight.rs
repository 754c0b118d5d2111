//! How long a request is in flight, and the outcome at its end.

use std::{convert::Infallible, sync::Arc};

use evenkeel_core::{error::cause, node::Node};
use evenkeel_http::{HttpConnector, InFlight, RequestError};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use tokio::sync::{Mutex, mpsc};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tower::ServiceExt;

use crate::sockets::support::{Payload, Told, get, node, serve, stack, told, within};

type Frames = mpsc::Sender<Frame<Bytes>>;

/// A node with one response, which the test sends frame by frame.
async fn streaming(status: u16, content_type: &'static str) -> (Arc<Node>, Frames) {
    let (frames, receiver) = mpsc::channel(8);
    let receiver = Arc::new(Mutex::new(Some(receiver)));
    let answer = move |_: Request<Incoming>| {
        let receiver = receiver.clone();
        async move {
            let receiver = receiver.lock().await.take().expect("one request");
            let frames = ReceiverStream::new(receiver).map(Ok::<_, Infallible>);
            Response::builder()
                .status(status)
                .header("content-type", content_type)
                .body(StreamBody::new(frames))
                .unwrap()
        }
    };
    (node(serve(answer).await).0, frames)
}

fn data() -> Frame<Bytes> {
    Frame::data(Bytes::from_static(b"hello"))
}

fn trailers(status: &'static str) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    Frame::trailers(trailers)
}

fn both() -> [HttpConnector<Payload>; 2] {
    [HttpConnector::new(), HttpConnector::new().http2()]
}

#[tokio::test]
async fn a_request_is_in_flight_until_the_end_of_the_body_by_default() {
    for connector in both() {
        let (node, frames) = streaming(200, "text/plain").await;
        let response = within(stack(&connector, &node).oneshot(get("/"))).await.unwrap();
        assert_eq!(node.in_flight(), 1);
        let mut body = response.into_body();
        frames.send(data()).await.unwrap();
        within(body.frame()).await.unwrap().unwrap();
        assert_eq!(node.in_flight(), 1);

        drop(frames);
        assert!(within(body.collect()).await.unwrap().to_bytes().is_empty());

        assert_eq!(node.in_flight(), 0);
        assert_eq!(told(&node), Told::Latency);
    }
}

#[tokio::test]
async fn a_request_is_in_flight_until_the_head_if_so_configured() {
    let (node, frames) = streaming(200, "text/plain").await;
    let connector = HttpConnector::new().in_flight(InFlight::Head);
    let response = within(stack(&connector, &node).oneshot(get("/"))).await.unwrap();

    assert_eq!(node.in_flight(), 0);
    assert_eq!(told(&node), Told::Latency);
    drop((response, frames));
}

#[tokio::test]
async fn a_body_dropped_midway_ends_the_request_with_the_outcome_of_the_head() {
    for (status, content_type, expected) in [
        (200, "text/plain", Told::Latency),
        (503, "text/plain", Told::FailureOrThrottled),
        (200, "application/grpc", Told::Nothing),
    ] {
        for connector in both() {
            let (node, frames) = streaming(status, content_type).await;
            let response = within(stack(&connector, &node).oneshot(get("/"))).await.unwrap();
            frames.send(data()).await.unwrap();
            let mut body = response.into_body();
            within(body.frame()).await.unwrap().unwrap();
            assert_eq!(node.in_flight(), 1);

            drop(body);

            assert_eq!(node.in_flight(), 0);
            assert_eq!(told(&node), expected, "{status} {content_type}");
        }
    }
}

#[tokio::test]
async fn a_grpc_status_in_the_trailers_decides() {
    for (status, expected) in
        [("0", Told::Latency), ("5", Told::Latency), ("14", Told::FailureOrThrottled)]
    {
        let (node, frames) = streaming(200, "application/grpc").await;
        let connector = HttpConnector::grpc();
        let response = within(stack(&connector, &node).oneshot(get("/"))).await.unwrap();
        frames.send(data()).await.unwrap();
        frames.send(trailers(status)).await.unwrap();
        let mut body = response.into_body();
        within(body.frame()).await.unwrap().unwrap();
        assert_eq!(told(&node), Told::Nothing);

        within(body.frame()).await.unwrap().unwrap();

        assert_eq!(told(&node), expected, "{status}");
        assert_eq!(node.in_flight(), 0);
    }
}

#[tokio::test]
async fn an_empty_body_ends_with_the_head() {
    for connector in both() {
        let address = serve(|_| async { Response::new(Payload::default()) }).await;
        let (node, _) = node(address);

        let response = within(stack(&connector, &node).oneshot(get("/"))).await.unwrap();

        assert_eq!(node.in_flight(), 0);
        assert_eq!(told(&node), Told::Latency);
        drop(response);
    }
}

#[tokio::test]
async fn a_request_whose_own_body_fails_says_nothing_about_the_endpoint() {
    for connector in [HttpConnector::new(), HttpConnector::new().http2()] {
        let (node, _) = node(serve(crate::sockets::support::echo).await);
        let frames = [Ok(data()), Err("the caller's caller is gone")];
        let request = Request::post("/").body(StreamBody::new(tokio_stream::iter(frames))).unwrap();

        let error = within(stack(&connector, &node).oneshot(request)).await.unwrap_err();

        let error = cause::<RequestError>(error.as_ref()).unwrap();
        assert!(error.is_callers_fault(), "{error:?}");
        assert_eq!(told(&node), Told::Nothing);
    }
}
