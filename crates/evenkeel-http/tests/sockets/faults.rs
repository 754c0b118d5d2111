//! What a caller sees when an endpoint misbehaves, over HTTP/1.1 or either.

use std::{io, sync::Arc, time::Duration};

use evenkeel_core::{
    connect::Connect,
    error::cause,
    node::{Gate, Node},
    observe::{Fault, Observer, Report},
    outcome::Outcome,
};
use evenkeel_http::{ConnectError, HttpConnector, RequestError};
use http_body_util::BodyExt;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{mpsc, oneshot},
};
use tower::ServiceExt;

use crate::support::{
    Payload, Told, echo, get, listen, node, serve_stream, stack, text, told, within,
};

const BOTH: [fn() -> HttpConnector<Payload>; 2] = [HttpConnector::new, HttpConnector::grpc];

/// Accepts one connection and reads the beginning of a request.
async fn accept_request(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut buffer = [0; 1024];
    assert_ne!(stream.read(&mut buffer).await.unwrap(), 0);
    stream
}

#[tokio::test]
async fn a_refused_connection_is_a_connect_error_and_asks_discovery() {
    for connector in BOTH {
        let (listener, address) = listen().await;
        drop(listener);
        let (node, unreachable) = node(address.clone());

        let error = within(stack(&connector(), &node).oneshot(get("/"))).await.unwrap_err();

        let error = cause::<ConnectError>(error.as_ref()).expect("a connect error");
        assert_eq!(error.address, address);
        assert!(!error.is_timeout());
        let reason = cause::<io::Error>(error).unwrap().kind();
        assert_eq!(reason, io::ErrorKind::ConnectionRefused);
        assert_eq!(unreachable.times(), 1);
        assert_eq!(told(&node), Told::FailureOrThrottled);
        assert_eq!(node.in_flight(), 0);
    }
}

/// A listener whose queue of connections is full: it answers no SYN.
async fn full_backlog() -> (tokio::net::TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) =
        tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
    {
        queued.push(stream.unwrap());
        assert!(queued.len() < 64, "this system's backlog does not fill");
    }
    (listener, queued)
}

#[tokio::test]
async fn a_full_backlog_is_a_connect_timeout() {
    let (listener, _queued) = full_backlog().await;
    for connector in BOTH {
        let (node, unreachable) = node(listener.local_addr().unwrap());
        let connector = connector().connect_timeout(Duration::from_millis(50));

        let error = within(stack(&connector, &node).oneshot(get("/"))).await.unwrap_err();

        assert!(cause::<ConnectError>(error.as_ref()).expect("a connect error").is_timeout());
        assert_eq!(unreachable.times(), 1);
    }
}

#[tokio::test]
async fn requests_that_wait_for_one_http2_connection_share_its_failure() {
    let (listener, _queued) = full_backlog().await;
    let (node, unreachable) = node(listener.local_addr().unwrap());
    let connector = HttpConnector::grpc().connect_timeout(Duration::from_millis(200));
    let service = connector.connect(&node);

    let calls = (0..50).map(|_| service.clone().oneshot(get("/")));
    let answers = within(futures_util::future::join_all(calls)).await;

    assert!(answers.iter().all(Result::is_err));
    assert_eq!(unreachable.times(), 1, "one connection was tried for all of them");
}

/// Passes on how attempts end.
struct Ends(mpsc::UnboundedSender<Report>);

impl Observer for Ends {
    fn ended(&self, _: &Node, report: &Report) {
        self.0.send(*report).unwrap();
    }
}

#[tokio::test]
async fn an_endpoint_that_dies_between_requests_is_known_to_be_lost_before_the_next() {
    for connector in BOTH {
        let (listener, address) = listen().await;
        let (die, died) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::select! {
                () = serve_stream(stream, echo) => {}
                _ = died => {}
            }
        });
        let (node, unreachable) = node(address);
        let (ends, mut ended) = mpsc::unbounded_channel();
        node.observe(Arc::new(Ends(ends)));
        node.open(Gate::Joining);
        let stack = stack(&connector().watch_connections(), &node);
        text(within(stack.clone().oneshot(get("/"))).await.unwrap()).await;
        assert_eq!(within(ended.recv()).await.unwrap().outcome, Outcome::Success);
        assert_eq!(unreachable.times(), 0);

        die.send(()).unwrap();

        let report = within(ended.recv()).await.unwrap();
        assert_eq!((report.outcome, report.fault), (Outcome::Failure, Fault::Local));
        assert_eq!(unreachable.times(), 1);
        assert_eq!(told(&node), Told::FailureOrThrottled);
    }
}

#[tokio::test]
async fn an_endpoint_that_closes_a_connection_and_lives_is_not_lost() {
    for connector in BOTH {
        let (listener, address) = listen().await;
        let (node, unreachable) = node(address);
        let (ends, mut ended) = mpsc::unbounded_channel();
        node.observe(Arc::new(Ends(ends)));
        node.open(Gate::Joining);
        let stack = stack(&connector().watch_connections(), &node);
        let (close, closed) = oneshot::channel::<()>();
        let served = async {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::select! {
                () = serve_stream(stream, echo) => {}
                _ = closed => {}
            }
        };
        let called = async {
            text(stack.clone().oneshot(get("/")).await.unwrap()).await;
            close.send(()).unwrap();
        };
        within(async { tokio::join!(served, called) }).await;

        // It is looked at: a connection without a request.
        let (mut look, _) = within(listener.accept()).await.unwrap();
        assert_eq!(within(look.read(&mut [0; 8])).await.unwrap(), 0);

        assert_eq!(ended.recv().await.unwrap().outcome, Outcome::Success);
        assert!(ended.try_recv().is_err(), "the call, and nothing else");
        assert_eq!(unreachable.times(), 0);
    }
}

#[tokio::test]
async fn a_killed_endpoint_is_a_request_error() {
    for connector in BOTH {
        let (listener, address) = listen().await;
        tokio::spawn(async move {
            let stream = accept_request(&listener).await;
            // Closing with unsent data and no linger sends RST, as a killed process may.
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        });
        let (node, unreachable) = node(address.clone());

        let error = within(stack(&connector(), &node).oneshot(get("/"))).await.unwrap_err();

        let error = cause::<RequestError>(error.as_ref()).expect("a request error");
        assert_eq!(error.address, address);
        assert!(!error.is_callers_fault());
        assert_eq!(unreachable.times(), 0);
        assert_eq!(told(&node), Told::FailureOrThrottled);
    }
}

#[tokio::test]
async fn an_endpoint_that_shuts_its_half_is_a_request_error() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let mut stream = accept_request(&listener).await;
        stream.shutdown().await.unwrap();
        stream
    });
    let (node, _) = node(address);

    let error = within(stack(&HttpConnector::new(), &node).oneshot(get("/"))).await.unwrap_err();

    let error = cause::<hyper::Error>(error.as_ref()).unwrap();
    assert!(error.is_incomplete_message());
    drop(server.await.unwrap());
}

#[tokio::test]
async fn a_hung_endpoint_holds_the_request_until_the_caller_gives_up() {
    let (listener, address) = listen().await;
    let (node, _) = node(address);
    let mut call = tokio::spawn(stack(&HttpConnector::new(), &node).oneshot(get("/")));
    let mut stream = within(accept_request(&listener)).await;
    assert_eq!(node.in_flight(), 1);

    let answer = tokio::time::timeout(Duration::from_millis(100), &mut call).await;
    assert!(answer.is_err(), "without a deadline of its own a request waits");
    call.abort();

    // The connection is of no use to anybody else.
    assert_eq!(within(stream.read(&mut [0])).await.unwrap(), 0);
    assert!(call.await.unwrap_err().is_cancelled());
    assert_eq!(node.in_flight(), 0);
    assert_eq!(told(&node), Told::Nothing);
}

#[tokio::test]
async fn an_idle_connection_that_the_endpoint_closed_costs_no_request() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        for _ in 0..3 {
            let mut stream = accept_request(&listener).await;
            // It promises to keep the connection, and does not.
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        }
    });
    let (node, _) = node(address);
    let service = HttpConnector::new().connect(&node);

    for _ in 0..3 {
        let response = within(service.clone().oneshot(get("/"))).await.unwrap();
        assert_eq!(text(response).await, "ok");
    }
    server.await.unwrap();
}

#[tokio::test]
async fn a_body_that_is_cut_is_an_error_and_a_failure() {
    for framing in
        ["content-length: 10\r\n\r\nhello", "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"]
    {
        let (listener, address) = listen().await;
        tokio::spawn(async move {
            let mut stream = accept_request(&listener).await;
            let head = format!("HTTP/1.1 200 OK\r\n{framing}");
            stream.write_all(head.as_bytes()).await.unwrap();
        });
        let (node, _) = node(address);

        let response = within(stack(&HttpConnector::new(), &node).oneshot(get("/"))).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(told(&node), Told::Nothing);
        let error = within(response.into_body().collect()).await.unwrap_err();

        let reason = cause::<io::Error>(&error).unwrap().kind();
        assert_eq!(reason, io::ErrorKind::UnexpectedEof);
        assert_eq!(told(&node), Told::FailureOrThrottled);
        assert_eq!(node.in_flight(), 0);
    }
}

#[tokio::test]
async fn what_is_no_http_is_a_request_error() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let mut stream = accept_request(&listener).await;
        stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n").await.unwrap();
    });
    let (node, _) = node(address);

    let error = within(stack(&HttpConnector::new(), &node).oneshot(get("/"))).await.unwrap_err();

    assert!(cause::<hyper::Error>(error.as_ref()).unwrap().is_parse());
}

#[tokio::test]
async fn an_endpoint_that_comes_back_is_spoken_to_again() {
    for connector in BOTH {
        let (listener, address) = listen().await;
        let socket_address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            serve_stream(stream, echo).await;
        });
        let (node, _) = node(address);
        let service = connector().connect(&node);
        text(within(service.clone().oneshot(get("/"))).await.unwrap()).await;

        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
        assert!(within(service.clone().oneshot(get("/"))).await.is_err());
        let listener = TcpListener::bind(socket_address).await.unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            serve_stream(stream, echo).await;
        });

        text(within(service.oneshot(get("/"))).await.unwrap()).await;
    }
}
