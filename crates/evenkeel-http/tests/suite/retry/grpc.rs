//! Which gRPC calls are retried.

use super::*;

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
async fn by_the_rules_of_grpc_unavailable_is_retried_elsewhere_unless_the_call_forbids_it() {
    for is_in_head in [true, false] {
        // Code, the call's own extension, attempts.
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
async fn by_the_rules_of_grpc_a_503_of_a_proxy_is_retried_for_grpc_calls_only() {
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
