//! The steps of a drain, and the requests in flight during them.

use super::*;

#[tokio::test]
async fn the_steps_come_in_their_order() {
    let deregistering = Arc::new((Notify::new(), Notify::new()));
    let hook = deregistering.clone();
    let drain = Drain::new()
        .deregister(move || async move {
            hook.0.notify_one();
            hook.1.notified().await;
            Ok(())
        })
        .wait(Duration::from_secs(2))
        .deregister_timeout(PATIENCE);
    let server = Running::start(drain, app()).await;
    let (address, handle) = (server.address, server.handle.clone());
    // Each on its own connection.
    let status = async |path| ask(&caller(false), address, path).await.map(|r| r.status().as_u16());
    assert_eq!(status("/ready").await.unwrap(), 200);

    handle.start();
    deregistering.0.notified().await;
    assert_eq!(handle.phase(), Phase::NotReady);
    assert_eq!(status("/ready").await.unwrap(), 503);
    let response = ask(&caller(false), address, "/").await.unwrap();
    assert_eq!(response.status(), 200, "still accepting");
    assert!(!response.headers().contains_key("connection"));

    deregistering.1.notify_one();
    handle.reached(Phase::Waiting).await;
    let response = ask(&caller(false), address, "/").await.unwrap();
    assert_eq!(response.status(), 200, "still accepting");
    assert_eq!(response.headers()["connection"], "close");
    let response = ask(&caller(true), address, "/").await.unwrap();
    assert!(!response.headers().contains_key("connection"), "not over HTTP/2");

    let report = server.report().await;
    assert_eq!(handle.phase(), Phase::Ended);
    assert!(status("/").await.is_err(), "no server listens");
    assert_eq!(report.deregistered, Deregistered::Done);
}

#[tokio::test]
async fn requests_under_way_are_answered_including_their_bodies() {
    for is_http2 in [false, true] {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (server_begun, server_go_on) = (begun.clone(), go_on.clone());
        let app = Router::new().route(
            "/",
            get(async move || {
                let rest = async move {
                    server_begun.notify_one();
                    server_go_on.notified().await;
                    Ok::<_, BoxError>("the rest")
                };
                let first = async { Ok("first, ") };
                let parts = [
                    futures_util::future::Either::Left(first),
                    futures_util::future::Either::Right(rest),
                ];
                let parts =
                    futures_util::StreamExt::then(futures_util::stream::iter(parts), |part| part);
                Body::from_stream(parts)
            }),
        );
        let server = Running::start(Drain::new().wait(Duration::ZERO), app).await;
        let response = ask(&caller(is_http2), server.address, "/").await.unwrap();
        begun.notified().await;
        let body = tokio::spawn(read(response));

        server.handle.start();
        server.handle.reached(Phase::Closing).await;
        assert_eq!(server.handle.in_flight(), 1);
        go_on.notify_one();

        assert_eq!(body.await.unwrap().unwrap(), "first, the rest");
        let report = server.report().await;
        assert_eq!((report.in_flight, report.requests_cut), (1, 0), "HTTP/2: {is_http2}");
    }
}

#[tokio::test]
async fn a_request_that_hangs_is_cut_at_the_bound_and_reported() {
    for is_http2 in [false, true] {
        let held = Arc::new(());
        let hangs = held.clone();
        let app = app().route(
            "/hang",
            get(async move || {
                std::future::pending::<()>().await;
                drop(hangs);
            }),
        );
        let grace = Duration::from_millis(200);
        let server = Running::start(Drain::new().wait(Duration::ZERO).grace(grace), app).await;
        let (address, handle) = (server.address, server.handle.clone());
        let hanging: Vec<_> = (0..2)
            .map(|_| tokio::spawn(async move { ask(&caller(is_http2), address, "/hang").await }))
            .collect();
        while handle.in_flight() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }

        handle.start();
        let begun = Instant::now();
        let report = server.report().await;

        assert!(
            grace <= begun.elapsed() && begun.elapsed() < PATIENCE / 4,
            "{:?}",
            begun.elapsed()
        );
        assert_eq!((report.in_flight, report.requests_cut), (2, 2), "HTTP/2: {is_http2}");
        assert!(!report.is_in_time);
        for hanging in hanging {
            assert!(hanging.await.unwrap().is_err());
        }
        // None of it is left.
        while handle.in_flight() != 0 || 1 < Arc::strong_count(&held) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn idle_connections_do_not_keep_the_server_from_stopping() {
    let server = Running::start(Drain::new().wait(Duration::ZERO), app()).await;
    let callers = [caller(false), caller(true)];
    for caller in &callers {
        read(ask(caller, server.address, "/").await.unwrap()).await.unwrap();
    }
    let _silent = tokio::net::TcpStream::connect(server.address).await.unwrap();
    server.handle.start();
    assert!(server.report().await.is_in_time);
}
