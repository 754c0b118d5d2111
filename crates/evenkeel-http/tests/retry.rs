//! Retries over real sockets.

#![allow(clippy::unwrap_used, reason = "clippy knows test functions, but not what they share")]

use std::{
    convert::Infallible,
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    backoff::Backoff,
    deadline::CarryDeadline,
    endpoint::Endpoint,
    error::{AttemptTimeout, cause},
    retry::{Budget, Reach, Verdict},
};
use evenkeel_http::{
    ConnectError, GrpcStatusLayer, HttpConnector, HttpDeadline, HttpRetry, Idempotent,
    RequestError, Seen,
};
use evenkeel_layers::{
    balance::BalanceLayer, deadline::DeadlineLayer, hedge::HedgeLayer, retry::RetryLayer,
};
use http::{HeaderMap, Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{io::AsyncReadExt, net::TcpListener};
use tower::{Layer, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};

type Body = UnsyncBoxBody<Bytes, Infallible>;
type Client = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

/// Nothing here may hang: what takes longer than this has failed.
async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it hangs")
}

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed_unsync()
}

/// A body of two frames, whose length nobody knows in advance.
fn stream(first: &'static str, second: &'static str) -> Body {
    let frames = [first, second].map(|text| Ok(Frame::data(Bytes::from(text))));
    StreamBody::new(tokio_stream::iter(frames)).boxed_unsync()
}

fn request(method: Method, body: Body) -> Request<Body> {
    Request::builder().method(method).uri("/").body(body).unwrap()
}

fn idempotent(mut request: Request<Body>) -> Request<Body> {
    request.extensions_mut().insert(Idempotent(true));
    request
}

/// What the servers of a test have seen: headers and body of each attempt.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(HeaderMap, String)>>>);

impl Log {
    fn bodies(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|(_, body)| body.clone()).collect()
    }
}

/// Answers each attempt with what `answer` says to its number, counted from 0 over all servers.
async fn server<A>(log: &Log, count: &Arc<AtomicUsize>, answer: A) -> Endpoint
where
    A: Fn(usize) -> Response<Body> + Clone + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (log, count) = (log.clone(), count.clone());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (log, count, answer) = (log.clone(), count.clone(), answer.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (log, count, answer) = (log.clone(), count.clone(), answer.clone());
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let body = String::from_utf8(body.to_vec()).unwrap();
                    log.0.lock().unwrap().push((head.headers, body));
                    Ok::<_, Infallible>(answer(count.fetch_add(1, SeqCst)))
                }
            });
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    Endpoint::new(address)
}

/// Two servers that answer alike.
async fn servers<A>(answer: A) -> (Vec<Endpoint>, Log)
where
    A: Fn(usize) -> Response<Body> + Clone + Send + Sync + 'static,
{
    let (log, count) = (Log::default(), Arc::default());
    let endpoints =
        vec![server(&log, &count, answer.clone()).await, server(&log, &count, answer).await];
    (endpoints, log)
}

fn layer() -> RetryLayer<HttpRetry> {
    let millisecond = Duration::from_millis(1);
    RetryLayer::new(Budget::default())
        .backoff(Backoff::full_jitter(millisecond, millisecond))
        .rules(HttpRetry::new())
}

fn client(layer: RetryLayer<HttpRetry>, endpoints: Vec<Endpoint>, is_grpc: bool) -> Client {
    let connector = if is_grpc { HttpConnector::grpc() } else { HttpConnector::new() };
    let stack = ServiceBuilder::new()
        .layer(layer)
        // A seed with which turns begin at the first of two.
        .layer(BalanceLayer::round_robin(endpoints).seed(15_444_690))
        .service(connector);
    let stack = ServiceBuilder::new()
        .map_response(|response: Response<_>| {
            response.map(|body: evenkeel_http::PeekedBody<_>| {
                // What fails in these tests fails before the body.
                BodyExt::map_err(body, |error: hyper::Error| -> Infallible { panic!("{error}") })
                    .boxed_unsync()
            })
        })
        .service(stack);
    BoxCloneSyncService::new(stack)
}

async fn text(response: Response<Body>) -> String {
    let body = within(response.into_body().collect()).await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

fn status(status: u16) -> Response<Body> {
    Response::builder().status(status).body(full(format!("status {status}"))).unwrap()
}

fn header(mut response: Response<Body>, name: &'static str, value: &'static str) -> Response<Body> {
    response.headers_mut().insert(name, value.parse().unwrap());
    response
}

#[tokio::test]
async fn a_connection_that_is_refused_costs_nobody_anything() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (log, count) = (Log::default(), Arc::default());
    let there = server(&log, &count, |_| status(200)).await;
    let empty = RetryLayer::new(Budget::share(0.0).floor_per_second(0)).rules(HttpRetry::new());
    let client = client(empty, vec![Endpoint::new(gone), there], false);

    for call in 0..10 {
        let response = within(client.clone().oneshot(request(Method::POST, full("order")))).await;
        assert_eq!(response.unwrap().status(), 200, "call {call}");
    }

    assert_eq!(log.bodies(), ["order"; 10]);
}

#[tokio::test]
async fn with_nobody_there_the_caller_gets_the_real_error() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = client(layer(), vec![Endpoint::new(gone)], false);
    let error = within(client.oneshot(request(Method::GET, full("")))).await.unwrap_err();
    assert!(cause::<ConnectError>(error.as_ref()).is_some(), "{error:?}");
}

#[tokio::test]
async fn a_bad_status_is_made_good_elsewhere_where_that_does_no_harm() {
    let post = || request(Method::POST, full("order"));
    for (request, attempts) in [
        (request(Method::GET, full("")), 2),
        (request(Method::PUT, full("order")), 2),
        (post(), 1),
        (idempotent(post()), 2),
    ] {
        let (endpoints, log) = servers(|n| status([503, 200][n.min(1)])).await;
        let response = within(client(layer(), endpoints, false).oneshot(request)).await.unwrap();
        assert_eq!(response.status(), [200, 503][usize::from(attempts == 1)]);
        assert_eq!(log.bodies().len(), attempts);
    }
}

#[tokio::test]
async fn the_last_real_response_is_what_the_caller_gets() {
    let (endpoints, log) = servers(|n| {
        let mut response = status([502, 503, 504][n]);
        *response.body_mut() = full(format!("attempt {n}"));
        response
    })
    .await;
    let response =
        within(client(layer(), endpoints, false).oneshot(request(Method::GET, full(""))));
    let response = response.await.unwrap();
    assert_eq!(response.status(), 504);
    assert_eq!(text(response).await, "attempt 2");
    assert_eq!(log.bodies().len(), 3);
}

#[tokio::test]
async fn a_500_is_not_retried_unless_it_is_asked_for() {
    let get = || request(Method::GET, full(""));
    let (endpoints, log) = servers(|_| status(500)).await;
    within(client(layer(), endpoints.clone(), false).oneshot(get())).await.unwrap();
    assert_eq!(log.bodies().len(), 1);

    let asked = layer().rules(HttpRetry::new().statuses([500]));
    within(client(asked, endpoints.clone(), false).oneshot(get())).await.unwrap();
    assert_eq!(log.bodies().len(), 4);

    let rules = HttpRetry::new().predicate(|seen| match seen {
        Seen::Response { status, .. } if status == 500 => {
            Some(Verdict::Again { reach: Reach::Unprocessed, after: Some(Duration::ZERO) })
        }
        _ => None,
    });
    let post = request(Method::POST, full(""));
    within(client(layer().rules(rules), endpoints, false).oneshot(post)).await.unwrap();
    assert_eq!(log.bodies().len(), 7);
}

#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "a test over sockets measures real time")]
async fn who_is_told_to_wait_waits_but_not_for_ever() {
    let (endpoints, log) = servers(|n| match n {
        0 => header(status(429), "retry-after", "3600"),
        1 => header(status(429), "ratelimit-reset", "3600"),
        _ => status(200),
    })
    .await;
    let client = client(layer().delay_max(Duration::from_millis(60)), endpoints, false);
    let start = tokio::time::Instant::now();
    let post = request(Method::POST, full("order"));
    assert_eq!(within(client.oneshot(post)).await.unwrap().status(), 200);
    assert!(Duration::from_millis(120) <= start.elapsed(), "{:?}", start.elapsed());
    assert_eq!(log.bodies(), ["order"; 3]);
}

#[tokio::test]
async fn too_many_requests_without_a_time_are_not_made_more() {
    let (endpoints, log) = servers(|_| status(429)).await;
    let response =
        within(client(layer(), endpoints, false).oneshot(request(Method::GET, full(""))));
    assert_eq!(response.await.unwrap().status(), 429);
    assert_eq!(log.bodies().len(), 1);
}

/// Reads a little and closes.
async fn hangs_up() -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.read(&mut [0; 1024]).await;
        }
    });
    Endpoint::new(address)
}

#[tokio::test]
async fn a_reset_before_the_response_is_made_good_where_that_does_no_harm() {
    let (log, count) = (Log::default(), Arc::default());
    let there = server(&log, &count, |_| status(200)).await;
    let endpoints = vec![hangs_up().await, there];

    let get = client(layer(), endpoints.clone(), false).oneshot(request(Method::GET, full("")));
    assert_eq!(within(get).await.unwrap().status(), 200);

    let post = client(layer(), endpoints, false).oneshot(request(Method::POST, full("order")));
    let error = within(post).await.unwrap_err();
    assert!(cause::<RequestError>(error.as_ref()).is_some(), "{error:?}");
    assert_eq!(log.bodies().len(), 1);
}

#[tokio::test]
async fn a_refused_stream_is_always_safe_to_send_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refuses = Endpoint::new(listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                }
            });
        }
    });
    let (log, count) = (Log::default(), Arc::default());
    let there = server(&log, &count, |_| status(200)).await;
    let empty = RetryLayer::new(Budget::share(0.0).floor_per_second(0)).rules(HttpRetry::new());

    let client = client(empty, vec![refuses, there], true);
    let response = within(client.oneshot(request(Method::POST, full("order")))).await.unwrap();

    assert_eq!(response.status(), 200);
    assert_eq!(log.bodies(), ["order"]);
}

#[tokio::test]
async fn a_streaming_body_is_sent_again_whole_up_to_its_bound() {
    let (endpoints, log) = servers(|n| status([503, 200, 503][n])).await;
    let rules = HttpRetry::new().body_max(10);
    let client = client(layer().rules(rules), endpoints, false);

    let short = request(Method::PUT, stream("hello", "world"));
    assert_eq!(within(client.clone().oneshot(short)).await.unwrap().status(), 200);
    assert_eq!(log.bodies(), ["helloworld"; 2]);

    let long = request(Method::PUT, stream("hello", "worlds"));
    let response = within(client.oneshot(long)).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(text(response).await, "status 503");
    assert_eq!(log.bodies()[2..], ["helloworlds"]);
}

#[tokio::test]
async fn a_body_of_any_length_is_sent_elsewhere_while_nothing_of_it_was_read() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (log, count) = (Log::default(), Arc::default());
    let there = server(&log, &count, |_| status(200)).await;
    let endpoints = vec![Endpoint::new(gone), there];
    let client = client(layer().rules(HttpRetry::new().body_max(0)), endpoints, false);
    let response = within(client.oneshot(request(Method::POST, stream("hello", "world")))).await;
    assert_eq!(response.unwrap().status(), 200);
    assert_eq!(log.bodies(), ["helloworld"]);
}

/// A response of gRPC: its status in the head, or in trailers behind it.
fn grpc(code: &'static str, is_in_head: bool, pushback: Option<&'static str>) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.parse().unwrap());
    if let Some(pushback) = pushback {
        trailers.insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
    }
    let mut response = if is_in_head {
        let mut response = Response::new(Empty::new().boxed_unsync());
        *response.headers_mut() = trailers;
        response
    } else {
        let frames = [Ok(Frame::trailers(trailers))];
        Response::new(StreamBody::new(tokio_stream::iter(frames)).boxed_unsync())
    };
    response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    response
}

fn grpc_call() -> Request<Body> {
    header_of(request(Method::POST, full("message")), "content-type", "application/grpc")
}

fn header_of(mut request: Request<Body>, name: &'static str, value: &'static str) -> Request<Body> {
    *request.uri_mut() = "/greeter.Greeter/Greet".parse().unwrap();
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

#[tokio::test]
async fn grpc_statuses_are_seen_wherever_they_are() {
    for is_in_head in [true, false] {
        // Code, pushback, whether idempotent, attempts.
        for (code, pushback, is_idempotent, attempts) in [
            ("14", None, true, 3),
            ("14", None, false, 1),
            ("14", Some("5"), true, 3),
            ("14", Some("5"), false, 3),
            ("14", Some("-1"), true, 1),
            ("14", Some("soon"), true, 1),
            ("8", None, true, 1),
            ("8", Some("5"), false, 3),
            ("13", None, true, 1),
            ("0", None, true, 1),
        ] {
            let (endpoints, log) = servers(move |_| grpc(code, is_in_head, pushback)).await;
            let call = if is_idempotent { idempotent(grpc_call()) } else { grpc_call() };
            let response = within(client(layer(), endpoints, true).oneshot(call)).await.unwrap();
            assert_eq!(log.bodies(), vec!["message"; attempts], "{code} {pushback:?}");
            let head = response.headers().get("grpc-status").cloned();
            let end = within(response.into_body().collect()).await.unwrap();
            let end = end.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
            assert_eq!(head.or(end).unwrap(), code, "the caller sees it");
        }
    }
}

fn by_the_rules_of_grpc() -> RetryLayer<HttpRetry> {
    layer().rules(HttpRetry::grpc())
}

#[tokio::test]
async fn by_the_rules_of_grpc_unavailable_is_made_good_elsewhere_unless_the_call_says_no() {
    for is_in_head in [true, false] {
        // Code, what the call says of itself, attempts.
        for (code, said, attempts) in [
            ("14", None, 3),
            ("14", Some(false), 1),
            ("14", Some(true), 3),
            ("4", None, 1),
            ("13", None, 1),
        ] {
            let (endpoints, log) = servers(move |_| grpc(code, is_in_head, None)).await;
            let mut call = grpc_call();
            said.map(|said| call.extensions_mut().insert(Idempotent(said)));
            let client = client(by_the_rules_of_grpc(), endpoints, true);
            within(client.oneshot(call)).await.unwrap();
            assert_eq!(log.bodies(), vec!["message"; attempts], "{code} {said:?}");
        }
    }
    let (endpoints, log) = servers(|n| grpc(["14", "0"][n], true, None)).await;
    let client = client(by_the_rules_of_grpc(), endpoints, true);
    let response = within(client.oneshot(grpc_call())).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "0");
    assert_eq!(log.bodies().len(), 2);
}

#[tokio::test]
async fn by_the_rules_of_grpc_a_proxy_that_finds_nobody_is_unavailable_and_other_requests_are_not()
{
    let (endpoints, log) = servers(|n| status([503, 200][n])).await;
    let response = client(by_the_rules_of_grpc(), endpoints.clone(), true).oneshot(grpc_call());
    assert_eq!(within(response).await.unwrap().status(), 200);
    assert_eq!(log.bodies().len(), 2);

    let (endpoints, log) = servers(|_| status(503)).await;
    let post = request(Method::POST, full("order"));
    let response = within(client(by_the_rules_of_grpc(), endpoints, true).oneshot(post)).await;
    assert_eq!(response.unwrap().status(), 503);
    assert_eq!(log.bodies().len(), 1);
}

/// Takes each call over HTTP/2, and closes its connection or, if `is_silent`, says nothing.
async fn takes_calls(is_silent: bool) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                let _call = connection.accept().await;
                if is_silent {
                    std::future::poll_fn(|cx| connection.poll_closed(cx)).await.unwrap();
                }
            });
        }
    });
    Endpoint::new(address)
}

#[tokio::test]
async fn by_the_rules_of_grpc_a_lost_connection_is_unavailable_and_a_timeout_is_not() {
    let (log, count) = (Log::default(), Arc::default());
    let answering = server(&log, &count, |_| grpc("0", true, None)).await;
    let first = |endpoint, rules| {
        ServiceBuilder::new()
            .layer(layer().rules(rules).attempt_timeout(Duration::from_millis(500)))
            .layer(BalanceLayer::pick_first(vec![endpoint, answering.clone()]))
            .service(HttpConnector::grpc())
    };

    let lost = takes_calls(false).await;
    let stack = first(lost.clone(), HttpRetry::grpc());
    let response = within(stack.oneshot(grpc_call())).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "0");
    let error = within(first(lost, HttpRetry::new()).oneshot(grpc_call())).await.unwrap_err();
    assert!(cause::<RequestError>(error.as_ref()).is_some(), "{error}");

    let stack = first(takes_calls(true).await, HttpRetry::grpc());
    let error = within(stack.oneshot(grpc_call())).await.unwrap_err();
    assert!(cause::<AttemptTimeout>(error.as_ref()).is_some(), "{error}");
}

#[tokio::test]
async fn a_response_that_was_made_of_an_error_here_is_judged_by_the_error() {
    // Nothing listens at the first; the second answers.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (log, count) = (Log::default(), Arc::default());
    let answering = server(&log, &count, |_| grpc("0", true, None)).await;
    let endpoints = vec![Endpoint::new(closed), answering];
    for _ in 0..2 {
        let stack = ServiceBuilder::new()
            .layer(layer())
            .layer(GrpcStatusLayer::new())
            .layer(BalanceLayer::pick_first(endpoints.clone()))
            .service(HttpConnector::grpc());
        let response = within(stack.oneshot(grpc_call())).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "0");
    }
    assert_eq!(log.bodies(), ["message", "message"]);
}

#[tokio::test]
async fn what_the_user_says_of_a_response_that_was_made_here_holds() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (log, count) = (Log::default(), Arc::default());
    let answering = server(&log, &count, |_| grpc("0", true, None)).await;
    let rules = HttpRetry::new().predicate(|seen| match seen {
        Seen::Response { .. } => Some(Verdict::Final),
        _ => None,
    });
    let stack = ServiceBuilder::new()
        .layer(RetryLayer::new(Budget::default()).rules(rules))
        .layer(GrpcStatusLayer::new())
        .layer(BalanceLayer::pick_first(vec![Endpoint::new(closed), answering]))
        .service(HttpConnector::grpc());

    let response = within(stack.oneshot(grpc_call())).await.unwrap();

    assert_eq!(response.headers()["grpc-status"], "14");
    assert!(log.bodies().is_empty());
}

#[tokio::test]
async fn each_attempt_says_how_many_there_were_before() {
    let (endpoints, log) = servers(|_| grpc("14", true, None)).await;
    within(client(layer(), endpoints, true).oneshot(idempotent(grpc_call()))).await.unwrap();
    let log = log.0.lock().unwrap();
    let previous: Vec<_> =
        log.iter().map(|(headers, _)| headers.get("grpc-previous-rpc-attempts").cloned()).collect();
    assert_eq!(previous, [None, Some("1".parse().unwrap()), Some("2".parse().unwrap())]);
}

#[tokio::test]
async fn a_stream_that_is_silent_at_first_is_not_held_back() {
    let (endpoints, _) = servers(|_| {
        let silent = tokio_stream::pending::<Result<Frame<Bytes>, Infallible>>();
        let response = Response::new(StreamBody::new(silent).boxed_unsync());
        header(response, "content-type", "application/grpc")
    })
    .await;
    let response = within(client(layer(), endpoints, true).oneshot(grpc_call())).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = pin!(response.into_body());
    let frame = tokio::time::timeout(Duration::from_millis(50), body.frame()).await;
    assert!(frame.is_err(), "nothing was sent");
}

#[tokio::test]
async fn what_is_left_of_the_deadline_is_said_to_each_attempt() {
    let (endpoints, log) = servers(|n| grpc(["14", "0"][n], true, None)).await;
    let deadline = DeadlineLayer::new(Duration::from_secs(7)).carry(HttpDeadline);
    let client = ServiceBuilder::new().layer(deadline).service(client(layer(), endpoints, true));
    within(client.oneshot(idempotent(grpc_call()))).await.unwrap();

    let log = log.0.lock().unwrap();
    let left: Vec<u64> = log
        .iter()
        .map(|(headers, _)| {
            let timeout = headers["grpc-timeout"].to_str().unwrap();
            timeout.strip_suffix('u').expect("microseconds").parse().unwrap()
        })
        .collect();
    assert!(left[1] <= left[0] && left[0] <= 7_000_000, "{left:?}");
    assert!(2_000_000 < left[1], "{left:?}");
}

#[tokio::test]
async fn a_server_takes_the_deadline_of_its_caller_over() {
    let handler = tower::service_fn(|request: Request<Body>| async move {
        Ok::<_, BoxError>(HttpDeadline.given(&request))
    });
    let server = DeadlineLayer::new(Duration::from_secs(30)).carry(HttpDeadline).layer(handler);
    let mut request = request(Method::GET, full(""));
    request.headers_mut().insert("grpc-timeout", "250m".parse().unwrap());
    let given = server.oneshot(request).await.unwrap();
    assert_eq!(given, Some(Duration::from_millis(250)));
}

#[tokio::test]
async fn a_hedge_goes_to_another_endpoint_and_the_first_good_answer_wins() {
    let (log, count) = (Log::default(), Arc::default());
    let there = server(&log, &count, |_| status(200)).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoints = vec![Endpoint::new(silent.local_addr().unwrap()), there];
    let hedge = HedgeLayer::after(Duration::from_millis(20), Budget::default());
    let client = ServiceBuilder::new()
        .layer(hedge.rules(HttpRetry::new()))
        .layer(BalanceLayer::pick_first(endpoints))
        .service(HttpConnector::new());

    for _ in 0..5 {
        let get = request(Method::GET, Empty::new().boxed_unsync());
        let response = within(client.clone().oneshot(get)).await.unwrap();
        assert_eq!(response.status(), 200);
    }
    assert_eq!(client.counts().won, 5);
    assert_eq!(client.counts().cancelled, 5);
}

#[tokio::test]
async fn an_upload_that_was_refused_early_ends_when_another_attempt_takes_it_over() {
    let (ended, mut has_ended) = tokio::sync::mpsc::unbounded_channel();
    let (frames, rest) = tokio::sync::mpsc::channel(2);
    let more = frames.clone();
    let attempts = Arc::new(AtomicUsize::new(0));
    let answer = move |request: Request<Incoming>| {
        let (ended, more) = (ended.clone(), more.clone());
        let is_first = attempts.fetch_add(1, SeqCst) == 0;
        async move {
            if is_first {
                // Answered without reading it to its end, which is still to come.
                tokio::spawn(async move {
                    ended.send(request.into_body().collect().await.map(|_| ())).unwrap();
                });
                return Ok::<_, Infallible>(status(503));
            }
            let end = Ok::<_, Infallible>(Frame::data(Bytes::from(", the rest")));
            more.send(end).await.unwrap();
            drop(more);
            let body = request.into_body();
            let mut body = pin!(BodyExt::into_data_stream(body));
            let mut read = Vec::new();
            while read.len() < "first, the rest".len() {
                read.extend(tokio_stream::StreamExt::next(&mut body).await.unwrap().unwrap());
            }
            Ok(Response::new(full(read)))
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new(listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(socket), service_fn(answer)).await;
            });
        }
    });
    frames.send(Ok(Frame::data(Bytes::from("first")))).await.unwrap();
    let body = StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(rest)).boxed_unsync();
    let upload = request(Method::PUT, body);

    let response = within(client(layer(), vec![endpoint], true).oneshot(upload)).await.unwrap();

    assert_eq!(text(response).await, "first, the rest");
    let first = within(has_ended.recv()).await.unwrap();
    assert!(first.is_err(), "what was begun is not taken for a whole body");
    drop(frames);
}
