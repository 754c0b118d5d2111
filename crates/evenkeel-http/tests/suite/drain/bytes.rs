//! The bytes that a connection receives and sends during a drain.

use super::*;

const HEAD: [&str; 2] = ["GET / HTTP/1.1\r\nho", "st: a\r\n\r\n"];

#[tokio::test]
async fn a_request_of_which_half_the_head_had_come_is_answered() {
    for is_kept_alive in [false, true] {
        let drain = Drain::new().wait(Duration::ZERO).max_idle(PATIENCE);
        let server = Running::start(drain, app()).await;
        let mut peer = Raw::to(&server).await;
        if is_kept_alive {
            peer.send(HEAD.concat()).await;
            peer.hello().await;
        }
        peer.send(HEAD[0]).await;
        settle(&server).await;

        server.handle.start();
        server.handle.reached(Phase::Closing).await;
        tokio::task::yield_now().await;
        peer.send(HEAD[1]).await;

        assert!(peer.hello().await.contains("connection: close"));
        let report = server.report().await;
        assert_eq!((report.requests_cut, report.is_in_time), (0, true));
    }
}

#[tokio::test]
async fn half_a_head_that_came_along_with_a_request_is_answered() {
    let server = Running::start(Drain::new().wait(Duration::ZERO).max_idle(PATIENCE), app()).await;
    let mut peer = Raw::to(&server).await;
    // In one piece, so that it has arrived before the first request is answered.
    peer.send([HEAD[0], HEAD[1], HEAD[0]].concat()).await;
    peer.hello().await;
    settle(&server).await;

    server.handle.start();
    server.handle.reached(Phase::Closing).await;
    tokio::task::yield_now().await;
    peer.send(HEAD[1]).await;

    assert!(peer.hello().await.contains("connection: close"));
    let report = server.report().await;
    assert_eq!((report.requests_cut, report.is_in_time), (0, true));
}

#[tokio::test]
async fn half_a_head_behind_a_response_that_still_streams_is_answered() {
    let go_on = Arc::new(Notify::new());
    let streams = go_on.clone();
    let streamed = get(async move || {
        let rest = async move {
            streams.notified().await;
            Ok::<_, BoxError>("last")
        };
        let parts = futures_util::StreamExt::chain(
            futures_util::stream::iter([Ok("first")]),
            futures_util::stream::once(rest),
        );
        Body::from_stream(parts)
    });
    let max_idle = Duration::from_millis(20);
    let drain = Drain::new().wait(Duration::ZERO).max_idle(max_idle).grace(4 * PATIENCE);
    let server = Running::start(drain, app().route("/streams", streamed)).await;
    let mut peer = Raw::to(&server).await;
    peer.send(["GET /streams HTTP/1.1\r\nhost: a\r\n\r\n", HEAD[0]].concat()).await;
    let mut first = [0; 1024];
    assert_ne!(peer.0.read(&mut first).await.unwrap(), 0);
    settle(&server).await;

    server.handle.start();
    server.handle.reached(Phase::Closing).await;
    // Under test: the response goes on for longer than an incomplete head may wait.
    tokio::time::sleep(4 * max_idle).await;
    peer.send(HEAD[1]).await;
    go_on.notify_one();

    assert!(peer.hello().await.contains("connection: close"));
    let report = server.report().await;
    assert_eq!((report.requests_cut, report.is_in_time), (0, true));
}

#[tokio::test]
async fn bytes_behind_a_request_that_are_no_head_do_not_count_as_a_cut_head() {
    // It answers while the upload goes on.
    let answers_early = axum::routing::post(async |body: Body| {
        tokio::spawn(body.collect());
        "hello"
    });
    let posts = |framing: &str| format!("POST /early HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n");
    for (request, later) in [
        (posts("content-length: 9"), "345"),
        (posts("transfer-encoding: chunked"), "9\r\n345"),
        // Some clients end a body like this, and servers skip it (RFC 9112, section 2.2).
        (HEAD.concat(), "\r\n"),
    ] {
        let max_idle = Duration::from_millis(50);
        let drain = Drain::new().wait(Duration::ZERO).max_idle(max_idle).grace(4 * PATIENCE);
        let server = Running::start(drain, app().route("/early", answers_early.clone())).await;
        let mut peer = Raw::to(&server).await;
        peer.send(&request).await;
        peer.hello().await;
        peer.send(later).await;
        settle(&server).await;

        server.handle.start();

        let report = server.report().await;
        assert_eq!((report.requests_cut, report.is_in_time), (0, true), "{request}{later}");
    }
}

#[tokio::test]
async fn a_head_that_never_becomes_whole_is_cut_soon_and_reported() {
    for is_kept_alive in [false, true] {
        let max_idle = Duration::from_millis(50);
        let drain = Drain::new().wait(Duration::ZERO).max_idle(max_idle).grace(4 * PATIENCE);
        let server = Running::start(drain, app()).await;
        let mut peer = Raw::to(&server).await;
        if is_kept_alive {
            peer.send(HEAD.concat()).await;
            peer.hello().await;
        }
        peer.send(HEAD[0]).await;
        settle(&server).await;

        server.handle.start();

        let report = server.report().await;
        assert_eq!((report.requests_cut, report.is_in_time), (1, true));
        assert_eq!(peer.0.read(&mut [0; 8]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_head_that_is_cut_by_the_end_of_the_grace_is_reported() {
    let grace = Duration::from_millis(50);
    let drain = Drain::new().wait(Duration::ZERO).max_idle(PATIENCE).grace(grace);
    let server = Running::start(drain, app()).await;
    let mut peer = Raw::to(&server).await;
    peer.send(HEAD[0]).await;
    settle(&server).await;

    server.handle.start();

    let report = server.report().await;
    assert_eq!((report.requests_cut, report.is_in_time), (1, false));
}

#[tokio::test]
async fn an_http2_peer_with_an_unfinished_handshake_does_not_keep_the_server_from_stopping() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    // The peer stops in the preface, before its settings, or before it acknowledges anything.
    for sent in [PREFACE[..20].to_vec(), PREFACE.to_vec(), [PREFACE, SETTINGS].concat()] {
        let max_idle = Duration::from_millis(50);
        let drain = Drain::new().wait(Duration::ZERO).max_idle(max_idle).grace(4 * PATIENCE);
        let server = Running::start(drain, app()).await;
        let mut peer = Raw::to(&server).await;
        peer.send(&sent).await;
        settle(&server).await;

        server.handle.start();

        let report = server.report().await;
        assert_eq!((report.requests_cut, report.is_in_time), (0, true), "{} bytes", sent.len());
    }
}

/// More than a socket accepts while its peer reads nothing.
const LENGTH: usize = 32 << 20;

#[tokio::test]
async fn a_response_whose_rest_was_not_taken_by_the_end_of_the_grace_is_reported_as_cut() {
    for is_http2 in [false, true] {
        let app = app().route("/large", get(async || vec![7; LENGTH]));
        let grace = Duration::from_millis(100);
        let server = Running::start(Drain::new().wait(Duration::ZERO).grace(grace), app).await;
        let mut reader = Raw::to(&server).await;
        if is_http2 {
            // With windows of 2 GiB, so that flow control holds nothing back.
            reader.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
            reader.send(b"\0\0\x06\x04\0\0\0\0\0\0\x04\x7f\xff\xff\xff").await;
            reader.send(b"\0\0\x04\x08\0\0\0\0\0\x7f\xfe\x00\x00").await;
            let path = b"\x82\x86\x41\x01a\x44\x06/large";
            reader.send([b"\0\0\x0d\x01\x05\0\0\0\x01".as_slice(), path].concat()).await;
        } else {
            reader.send("GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await;
        }
        // Once its body is no longer in flight, the server has handed the response to hyper.
        while reader.0.peek(&mut [0; 1024]).await.unwrap() < 1024 {
            tokio::task::yield_now().await;
        }
        settle(&server).await;

        server.handle.start();

        let report = server.report().await;
        assert_eq!((report.requests_cut, report.is_in_time), (1, false), "HTTP/2: {is_http2}");
    }
}

#[tokio::test]
async fn a_response_that_its_reader_has_not_taken_yet_is_not_cut_for_being_idle() {
    let app = app().route("/large", get(async || vec![7; LENGTH]));
    let max_idle = Duration::from_millis(20);
    let drain = Drain::new().wait(Duration::ZERO).max_idle(max_idle).grace(4 * PATIENCE);
    let server = Running::start(drain, app).await;
    let mut reader = Raw::to(&server).await;
    reader.send("GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut first = [0; 1024];
    assert_ne!(reader.0.read(&mut first).await.unwrap(), 0);

    server.handle.start();
    server.handle.reached(Phase::Closing).await;
    // Under test: it reads nothing for many times as long as a connection may be idle.
    tokio::time::sleep(20 * max_idle).await;

    let mut rest = Vec::new();
    reader.0.read_to_end(&mut rest).await.unwrap();
    assert!(LENGTH <= rest.len() + first.len());
    assert!(server.report().await.is_in_time);
}
