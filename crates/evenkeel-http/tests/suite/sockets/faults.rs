//! What a caller sees when an endpoint misbehaves, over HTTP/1.1 or either version.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use evenkeel_core::{
    connect::Connect,
    endpoint::{Address, Endpoint},
    error::cause,
    health::check::Probe,
    node::Gate,
    observe::Fault,
    outcome::Outcome,
    retry::Budget,
};
use evenkeel_http::{ConnectError, HttpConnector, HttpRetry, ReplayBody, RequestError, TcpProbe};
use evenkeel_layers::{balance::BalanceLayer, retry::RetryLayer};
use futures_util::FutureExt;
use http::Response;
use http_body_util::{BodyExt, Full};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Notify, oneshot},
};
use tower::{Layer, ServiceExt};

use crate::sockets::support::{
    Payload, Told, echo, ends, get, listen, node, serve, serve_stream, stack, text, told, within,
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

#[tokio::test]
async fn an_endpoint_that_listens_at_one_of_its_addresses_is_reached_at_every_turn() {
    for connector in BOTH {
        let Address::Socket(listening) = serve(echo).await else { panic!("a socket") };
        let mut refusing = listening;
        refusing.set_ip("127.0.0.2".parse().unwrap());
        // Like a name with both families, while the server listens on one.
        let pair = |address: SocketAddr, other| Endpoint::from(address).alternatives([other]);
        let endpoints = vec![pair(refusing, listening), pair(listening, refusing)];
        let client = BalanceLayer::round_robin(endpoints.clone()).layer(connector());
        for _ in 0..10 {
            text(within(client.clone().oneshot(get("/"))).await.unwrap()).await;
        }

        let (node, unreachable) = node(endpoints[0].clone());
        within(TcpProbe::new().probe(&node)).await.unwrap();
        let nowhere = Endpoint::from(refusing).alternatives([refusing]);
        let (gone, gone_unreachable) = self::node(nowhere);
        let error = within(stack(&connector(), &gone).oneshot(get("/"))).await.unwrap_err();
        assert!(cause::<ConnectError>(error.as_ref()).is_some());
        assert_eq!((unreachable.times(), gone_unreachable.times()), (0, 1));
    }
}

#[tokio::test]
async fn a_probe_at_another_port_looks_at_all_addresses_too() {
    let Address::Socket(listening) = serve(echo).await else { panic!("a socket") };
    let pair = ["127.0.0.2:1", "127.0.0.1:1"].map(|address| address.parse::<SocketAddr>().unwrap());
    let (node, _) = node(Endpoint::from(pair[0]).alternatives([pair[1]]));

    within(TcpProbe::new().port(listening.port()).probe(&node)).await.unwrap();
}

/// A listener with a full queue of connections: it answers no SYN.
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
        let mut ended = ends(&node);
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
        let mut ended = ends(&node);
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

        // The check: a connection without a request.
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

    // No other request can use the connection.
    assert_eq!(within(stream.read(&mut [0])).await.unwrap(), 0);
    assert!(call.await.unwrap_err().is_cancelled());
    assert_eq!(node.in_flight(), 0);
    assert_eq!(told(&node), Told::Latency, "it would have taken at least so long");
}

#[tokio::test]
async fn an_idle_connection_that_the_endpoint_closed_costs_no_request() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        for _ in 0..3 {
            let mut stream = accept_request(&listener).await;
            // It promises to keep the connection, but closes it.
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
async fn a_response_that_is_not_http_is_a_request_error() {
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

/// A server that never answers the second request, and a signal that it has arrived.
async fn silent_the_second_time() -> (Address, Arc<Notify>) {
    let (asked, has_second) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let second = has_second.clone();
    let address = serve(move |_| {
        let (number, second) = (asked.fetch_add(1, SeqCst), second.clone());
        async move {
            if number == 1 {
                second.notify_one();
                std::future::pending::<()>().await;
            }
            Response::new(Full::from("ok"))
        }
    });
    (address.await, has_second)
}

// Multi-threaded runtimes share connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_connection_whose_runtime_ended_blames_no_endpoint_and_the_request_is_retried() {
    let connectors: [HttpConnector<ReplayBody<Payload>>; 2] =
        [HttpConnector::new(), HttpConnector::grpc()];
    for connector in connectors {
        let (address, has_second) = silent_the_second_time().await;
        let (node, _) = node(address);
        let mut ended = ends(&node);
        node.open(Gate::Joining);
        let rules = RetryLayer::new(Budget::default()).rules(HttpRetry::new());
        let stack = rules.layer(stack(&connector, &node));
        // Its connection is driven by a runtime that ends while a call on another waits for an answer.
        let other = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let first = other.spawn({
            let stack = stack.clone();
            async move { text(stack.oneshot(get("/")).await.unwrap()).await }
        });
        assert_eq!(within(first).await.unwrap(), "ok");
        let second = tokio::spawn(stack.oneshot(get("/")));
        within(has_second.notified()).await;

        other.shutdown_background();

        let response = within(second).await.unwrap().unwrap();
        assert_eq!(text(response).await, "ok");
        let outcomes = [(); 3].map(|()| ended.try_recv().unwrap().outcome);
        assert_eq!(outcomes, [Outcome::Success, Outcome::Ignored, Outcome::Success]);
    }
}

#[tokio::test]
async fn a_runtime_that_ends_while_it_connects_leaves_the_next_caller_a_connection_of_its_own() {
    let (listener, queued) = full_backlog().await;
    let (node, unreachable) = node(listener.local_addr().unwrap());
    let connector = HttpConnector::<Payload>::grpc().connect_timeout(Duration::from_secs(15));
    let service = connector.connect(&node);
    let other = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (begun, has_begun) = oneshot::channel();
    let mut first = Box::pin(service.clone().oneshot(get("/")));
    other.spawn(async move {
        assert!((&mut first).now_or_never().is_none());
        begun.send(()).unwrap();
        first.await
    });
    within(has_begun).await.unwrap();
    let mut second = Box::pin(service.oneshot(get("/")));
    assert!((&mut second).now_or_never().is_none());

    other.shutdown_background();
    drop(queued);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve_stream(stream, echo));
        }
    });

    assert_eq!(within(second).await.unwrap().status(), 200);
    assert_eq!(unreachable.times(), 0);
}
