//! What a caller sees when an HTTP/2 endpoint misbehaves.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use evenkeel_core::{
    connect::Connect,
    endpoint::Endpoint,
    error::cause,
    node::Gate,
    outcome::Outcome,
    retry::{Budget, Reach, Rules, Verdict},
};
use evenkeel_http::{HttpConnector, HttpRetry, RequestError};
use evenkeel_layers::{
    balance::BalanceLayer, breaker::CircuitBreakerLayer, outlier::OutlierLayer, retry::RetryLayer,
};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_stream::StreamExt;
use tower::{ServiceBuilder, ServiceExt};

use crate::sockets::support::{
    Payload, Told, ends, get, listen, node, serve, stack, text, told, within,
};

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

/// The server's side of a connection, frame by frame.
struct Raw(TcpStream);

impl Raw {
    async fn accept(listener: &tokio::net::TcpListener) -> Self {
        let mut raw = Self::accept_silently(listener).await;
        raw.write(SETTINGS, 0, &[]).await;
        raw
    }

    /// Without settings, so that the client knows no limit yet.
    async fn accept_silently(listener: &tokio::net::TcpListener) -> Self {
        let (mut stream, _) = within(listener.accept()).await.unwrap();
        let mut preface = [0; 24];
        within(stream.read_exact(&mut preface)).await.unwrap();
        Self(stream)
    }

    async fn write(&mut self, kind: u8, flags: u8, payload: &[u8]) {
        self.write_on(0, kind, flags, payload).await;
    }

    async fn write_on(&mut self, stream: u32, kind: u8, flags: u8, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat();
        self.0.write_all(&head).await.unwrap();
    }

    /// The head of a response without a body, status 200.
    async fn answer(&mut self, stream: u32) {
        self.write_on(stream, HEADERS, 0x5, &[0x88]).await;
    }

    /// The kind and the stream of the next frame.
    async fn read(&mut self) -> (u8, u32) {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        self.0.read_exact(&mut vec![0; length]).await.unwrap();
        (head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]))
    }

    /// The stream of the next frame of this kind.
    async fn read_until(&mut self, kind: u8) -> u32 {
        loop {
            if let (found, stream) = within(self.read()).await
                && found == kind
            {
                return stream;
            }
        }
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
    // The peer accepts everything and sends nothing, like a hung process or a dead route.
    let mut raw = Raw::accept(&listener).await;
    raw.read_until(PING).await;

    let error = within(call).await.unwrap().unwrap_err();

    assert!(cause::<RequestError>(error.as_ref()).is_some());
    assert!(cause::<hyper::Error>(error.as_ref()).unwrap().is_timeout(), "{error:?}");
    assert_eq!(node.in_flight(), 0);
}

#[tokio::test]
async fn no_ping_is_sent_while_no_request_is_under_way() {
    let (listener, address) = listen().await;
    let (node, _) = node(address);
    let connector = pinging();
    let service = connector.connect(&node);
    let call = tokio::spawn(service.clone().oneshot(get("/")));
    let mut raw = Raw::accept(&listener).await;
    raw.read_until(HEADERS).await;
    call.abort();
    raw.read_until(RST_STREAM).await;

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
            // Sends `GOAWAY` before it answers, as a server does during a rollout.
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
async fn a_slow_reader_holds_up_only_itself() {
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

/// What `HttpRetry` says of the error of a `POST`.
fn verdict(error: evenkeel_core::BoxError) -> Verdict {
    use evenkeel_core::retry::Replay;

    let rules = HttpRetry::new();
    let request = Request::post("/").body(Payload::default()).unwrap();
    let (mut call, _) = rules.begin(request);
    Rules::<_, Response<Payload>>::judge(&rules, &mut call, &mut Err(error))
}

const UNPROCESSED: Verdict = Verdict::Again { reach: Reach::Unprocessed, after: None };

#[tokio::test]
async fn streams_above_the_last_of_a_goaway_are_no_failures() {
    // The frame says what was not processed, for any reason in it (RFC 9113, section 8.7).
    for reason in [h2::Reason::NO_ERROR, h2::Reason::INTERNAL_ERROR] {
        let (listener, address) = listen().await;
        let (node, _) = node(address);
        let mut ended = ends(&node);
        node.open(Gate::Joining);
        let stack = stack(&HttpConnector::<Payload>::grpc(), &node);
        let calls = [(); 3].map(|()| tokio::spawn(stack.clone().oneshot(get("/"))));
        let mut raw = Raw::accept(&listener).await;
        for _ in &calls {
            raw.read_until(HEADERS).await;
        }

        let last = [1_u32.to_be_bytes(), u32::from(reason).to_be_bytes()].concat();
        raw.write(GOAWAY, 0, &last).await;
        raw.answer(1).await;

        let mut answered = 0;
        for call in calls {
            match within(call).await.unwrap() {
                Ok(response) => answered += u32::from(response.status().is_success()),
                Err(error) => assert_eq!(verdict(error), UNPROCESSED),
            }
        }
        assert_eq!(answered, 1);
        let mut outcomes = [(); 3].map(|()| ended.try_recv().unwrap().outcome.name());
        outcomes.sort_unstable();
        assert_eq!(outcomes, ["ignored", "ignored", "success"], "{reason:?}");
    }
}

#[tokio::test]
async fn a_stream_that_a_goaway_names_may_have_been_processed_and_is_a_failure() {
    for reason in [h2::Reason::NO_ERROR, h2::Reason::INTERNAL_ERROR] {
        let (listener, address) = listen().await;
        let (node, _) = node(address);
        let mut ended = ends(&node);
        node.open(Gate::Joining);
        let call = tokio::spawn(stack(&HttpConnector::<Payload>::grpc(), &node).oneshot(get("/")));
        let mut raw = Raw::accept(&listener).await;
        raw.read_until(HEADERS).await;

        let last = [1_u32.to_be_bytes(), u32::from(reason).to_be_bytes()].concat();
        raw.write(GOAWAY, 0, &last).await;
        drop(raw);

        let error = within(call).await.unwrap().unwrap_err();
        assert_eq!(verdict(error), Verdict::Again { reach: Reach::Processed, after: None });
        assert_eq!(ended.try_recv().unwrap().outcome, Outcome::Failure, "{reason:?}");
    }
}

#[tokio::test]
async fn a_cold_burst_above_a_limit_that_is_not_known_yet_counts_only_as_load() {
    const BURST: usize = 20;
    let (listener, address) = listen().await;
    let (node, _) = node(address);
    let mut ended = ends(&node);
    node.open(Gate::Joining);
    let stack = stack(&HttpConnector::<Payload>::grpc(), &node);
    let calls = [(); BURST].map(|()| tokio::spawn(stack.clone().oneshot(get("/"))));
    let mut raw = Raw::accept_silently(&listener).await;
    let mut streams = Vec::new();
    while streams.len() < BURST {
        streams.push(raw.read_until(HEADERS).await);
    }

    // At most one stream at a time, and all but one of these are refused.
    raw.write(SETTINGS, 0, &[0, 3, 0, 0, 0, 1]).await;
    for stream in &streams[1..] {
        let refused = u32::from(h2::Reason::REFUSED_STREAM).to_be_bytes();
        raw.write_on(*stream, RST_STREAM, 0, &refused).await;
    }

    let mut left = Vec::new();
    for call in calls {
        left.push(tokio::spawn(async move { call.await.unwrap() }));
    }
    for _ in 1..BURST {
        assert_eq!(within(ended.recv()).await.unwrap().outcome, Outcome::Ignored);
    }
    assert_eq!(told(&node), Told::Nothing, "no latency");
    assert!(0 < node.penalty(), "it looks no more idle than it is");
    raw.answer(streams[0]).await;
    for call in left {
        if let Err(error) = within(call).await.unwrap() {
            assert_eq!(verdict(error), UNPROCESSED);
        }
    }
    assert_eq!(ended.try_recv().unwrap().outcome, Outcome::Success);
}

#[tokio::test]
async fn an_endpoint_that_refuses_streams_is_not_ejected_and_opens_no_breaker() {
    const CALLS: usize = 40;
    let (listener, refusing) = listen().await;
    let refused = Arc::new(AtomicUsize::new(0));
    let counted = refused.clone();
    tokio::spawn(async move {
        let mut raw = Raw::accept(&listener).await;
        loop {
            let stream = raw.read_until(HEADERS).await;
            counted.fetch_add(1, SeqCst);
            let reason = u32::from(h2::Reason::REFUSED_STREAM).to_be_bytes();
            raw.write_on(stream, RST_STREAM, 0, &reason).await;
        }
    });
    let taking = serve(|_| async { Response::new(Payload::default()) }).await;
    let endpoints = [refusing, taking].map(Endpoint::new).to_vec();
    let client = ServiceBuilder::new()
        .layer(RetryLayer::new(Budget::share(100.0)).rules(HttpRetry::new()))
        .layer(BalanceLayer::round_robin(endpoints))
        .layer(OutlierLayer::new().consecutive_local_errors(3))
        .layer(CircuitBreakerLayer::new().consecutive_failures(3))
        .service(HttpConnector::grpc());

    for _ in 0..CALLS {
        let response = within(client.clone().oneshot(get("/"))).await.unwrap();
        assert_eq!(response.status(), 200);
    }

    // Two turns go to both of them, and a retry takes a turn as well.
    assert!(CALLS / 3 <= refused.load(SeqCst), "refused {} of {CALLS}", refused.load(SeqCst));
}
