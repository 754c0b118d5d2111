//! What each attempt carries, and hedges.

use super::*;

#[tokio::test]
async fn each_attempt_says_how_many_came_before() {
    let (endpoints, log) = servers(|_| grpc("14", true, None)).await;
    within(client(layer(), endpoints, true).oneshot(idempotent(grpc_call()))).await.unwrap();
    let log = log.0.lock().unwrap();
    let previous: Vec<_> =
        log.iter().map(|(headers, _)| headers.get("grpc-previous-rpc-attempts").cloned()).collect();
    assert_eq!(previous, [None, Some("1".parse().unwrap()), Some("2".parse().unwrap())]);
}

#[tokio::test]
async fn each_attempt_is_sent_with_the_time_left_until_the_deadline() {
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
