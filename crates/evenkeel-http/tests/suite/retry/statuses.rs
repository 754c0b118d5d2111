//! Responses that are retried, and errors in their place.

use super::*;

#[tokio::test]
async fn a_refused_connection_costs_no_budget_and_no_error() {
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
async fn without_a_reachable_endpoint_the_caller_gets_the_real_error() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = client(layer(), vec![Endpoint::new(gone)], false);
    let error = within(client.oneshot(request(Method::GET, full("")))).await.unwrap_err();
    assert!(cause::<ConnectError>(error.as_ref()).is_some(), "{error:?}");
}

#[tokio::test]
async fn a_bad_status_is_retried_elsewhere_if_that_does_no_harm() {
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
async fn a_retry_waits_as_the_endpoint_asks_but_not_for_ever() {
    let (endpoints, log) = servers(|n| match n {
        0 => header(status(429), "retry-after", "3600"),
        1 => header(status(429), "ratelimit-reset", "3600"),
        _ => status(200),
    })
    .await;
    let client = client(layer().max_delay(Duration::from_millis(60)), endpoints, false);
    let start = tokio::time::Instant::now();
    let post = request(Method::POST, full("order"));
    assert_eq!(within(client.oneshot(post)).await.unwrap().status(), 200);
    assert!(Duration::from_millis(120) <= start.elapsed(), "{:?}", start.elapsed());
    assert_eq!(log.bodies(), ["order"; 3]);
}

#[tokio::test]
async fn a_429_without_a_time_to_wait_is_not_retried() {
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
async fn a_reset_before_the_response_is_retried_if_that_does_no_harm() {
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
async fn a_response_that_this_process_made_of_an_error_is_judged_by_the_error() {
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
async fn the_users_verdict_on_a_response_that_this_process_made_holds() {
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
