//! What a caller sees when an HTTP/2 endpoint misbehaves.

use std::{convert::Infallible, time::Duration};

use evenkeel_core::{connect::Connect, error::cause};
use evenkeel_http::{HttpConnector, RequestError};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_stream::StreamExt;
use tower::ServiceExt;

use crate::support::{Payload, get, listen, node, serve, stack, text, within};

const PING: u8 = 6;
const GOAWAY: u8 = 7;

/// The server's side of a connection, frame by frame.
struct Raw(TcpStream);

impl Raw {
    async fn accept(listener: &tokio::net::TcpListener) -> Self {
        let (mut stream, _) = within(listener.accept()).await.unwrap();
        let mut preface = [0; 24];
        within(stream.read_exact(&mut preface)).await.unwrap();
        let mut raw = Self(stream);
        raw.write(4, 0, &[]).await;
        raw
    }

    async fn write(&mut self, kind: u8, flags: u8, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [length[1], length[2], length[3], kind, flags, 0, 0, 0, 0];
        self.0.write_all(&[&head, payload].concat()).await.unwrap();
    }

    /// The kind of the next frame.
    async fn read(&mut self) -> u8 {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        self.0.read_exact(&mut vec![0; length]).await.unwrap();
        head[3]
    }

    async fn read_until(&mut self, kind: u8) {
        while within(self.read()).await != kind {}
    }
}

fn pinging() -> HttpConnector<Payload> {
    HttpConnector::grpc().http2_ping(Duration::from_millis(50), Duration::from_millis(50))
}

#[tokio::test]
async fn silence_is_noticed_by_pings() {
    let (listener, address) = listen().await;
    let (node, _) = node(address);
    let call = tokio::spawn(stack(&pinging(), &node).oneshot(get("/")));
    // The peer takes everything in and says nothing: so look a hung process and a dead route.
    let mut raw = Raw::accept(&listener).await;
    raw.read_until(PING).await;

    let error = within(call).await.unwrap().unwrap_err();

    assert!(cause::<RequestError>(error.as_ref()).is_some());
    assert!(cause::<hyper::Error>(error.as_ref()).unwrap().is_timeout(), "{error:?}");
    assert_eq!(node.in_flight(), 0);
}

#[tokio::test]
async fn nobody_is_pinged_while_no_request_is_under_way() {
    let (listener, address) = listen().await;
    let (node, _) = node(address);
    let connector = pinging();
    let service = connector.connect(&node);
    let call = tokio::spawn(service.clone().oneshot(get("/")));
    let mut raw = Raw::accept(&listener).await;
    raw.read_until(1).await;
    call.abort();
    // Resets the stream.
    raw.read_until(3).await;

    let ping = tokio::time::timeout(Duration::from_millis(300), raw.read_until(PING)).await;

    assert!(ping.is_err());
    drop(service);
}

#[tokio::test]
async fn a_server_that_objects_to_pings_gets_none_from_then_on() {
    let (listener, address) = listen().await;
    let (node, _) = node(address);
    let service = pinging().connect(&node);
    let call = tokio::spawn(service.clone().oneshot(get("/")));
    let mut raw = Raw::accept(&listener).await;
    raw.read_until(PING).await;
    let enhance_your_calm = [&[0; 4][..], &[0, 0, 0, 0xb], b"too_many_pings"].concat();
    raw.write(GOAWAY, 0, &enhance_your_calm).await;
    assert!(within(call).await.unwrap().is_err());

    let call = tokio::spawn(service.clone().oneshot(get("/")));
    let mut raw = Raw::accept(&listener).await;
    let ping = tokio::time::timeout(Duration::from_millis(300), raw.read_until(PING)).await;

    assert!(ping.is_err());
    assert!(!call.is_finished());
}

#[tokio::test]
async fn after_a_goaway_requests_go_over_a_new_connection() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        for _ in 0..3 {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            // Says goodbye before it answers, as a server that is rolled out does.
            connection.graceful_shutdown();
            respond.send_response(Response::new(()), true).unwrap();
            while connection.accept().await.is_some() {}
        }
    });
    let (node, _) = node(address);
    let service = HttpConnector::grpc().connect(&node);

    for _ in 0..3 {
        let response = within(service.clone().oneshot(get("/"))).await.unwrap();
        assert_eq!(response.status(), 200);
    }
    within(server).await.unwrap();
}

fn stream_of(
    frames: usize,
    bytes: usize,
) -> impl hyper::body::Body<Data = Bytes, Error = Infallible> {
    let frame = Bytes::from(vec![7; bytes]);
    let frames = std::iter::repeat_n(frame, frames).map(|data| Ok(Frame::data(data)));
    StreamBody::new(tokio_stream::iter(frames))
}

#[tokio::test]
async fn a_hundred_thousand_messages_of_one_byte_are_no_attack() {
    const MESSAGES: usize = 100_000;
    let (node, _) = node(serve(|_| async { Response::new(stream_of(MESSAGES, 1)) }).await);

    let response = within(stack(&HttpConnector::grpc(), &node).oneshot(get("/"))).await.unwrap();
    let body = within(response.into_body().collect()).await.unwrap().to_bytes();

    assert_eq!(body.len(), MESSAGES);
}

#[tokio::test]
async fn a_slow_reader_holds_up_itself_alone() {
    const FRAMES: usize = 1024;
    let answer = |request: Request<Incoming>| async move {
        let frames = if request.uri().path() == "/large" { FRAMES } else { 1 };
        Response::new(stream_of(frames, 16 << 10))
    };
    let (node, _) = node(serve(answer).await);
    // The connection's window is larger than a stream's, or one stream could take it all.
    let connector = HttpConnector::grpc().http2_windows(64 << 10, 1 << 20);
    let stack = stack(&connector, &node);

    let slow = within(stack.clone().oneshot(get("/large"))).await.unwrap();
    for _ in 0..10 {
        let quick = within(stack.clone().oneshot(get("/small"))).await.unwrap();
        assert_eq!(text_length(quick).await, 16 << 10);
    }
    assert_eq!(node.in_flight(), 1);

    assert_eq!(text_length(slow).await, FRAMES * (16 << 10));
    assert_eq!(node.in_flight(), 0);
}

async fn text_length<R>(response: Response<R>) -> usize
where
    R: hyper::body::Body<Error: std::fmt::Debug>,
{
    text(response).await.len()
}

#[tokio::test]
async fn a_cut_http2_body_is_an_error() {
    let broken = |_| async {
        let frames = [Ok(Frame::data(Bytes::from_static(b"hello"))), Err("gone")];
        Response::new(StreamBody::new(
            tokio_stream::iter(frames).throttle(Duration::from_millis(1)),
        ))
    };
    let (node, _) = node(serve(broken).await);

    let response = within(stack(&HttpConnector::grpc(), &node).oneshot(get("/"))).await.unwrap();
    let error = within(response.into_body().collect()).await.unwrap_err();

    assert!(cause::<h2::Error>(&error).unwrap().is_reset());
    assert_eq!(node.in_flight(), 0);
}
