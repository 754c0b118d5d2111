//! What a connection brings byte by byte, and takes.

use super::*;

const HEAD: [&str; 2] = ["GET / HTTP/1.1\r\nho", "st: a\r\n\r\n"];

#[tokio::test]
async fn a_request_of_which_half_the_head_had_come_is_answered() {
    for is_kept_alive in [false, true] {
        let drain = Drain::new().wait(Duration::ZERO).idle_max(PATIENCE);
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
async fn a_head_that_never_becomes_whole_is_cut_soon_and_reported() {
    for is_kept_alive in [false, true] {
        let idle_max = Duration::from_millis(50);
        let drain = Drain::new().wait(Duration::ZERO).idle_max(idle_max).grace(4 * PATIENCE);
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
    let drain = Drain::new().wait(Duration::ZERO).idle_max(PATIENCE).grace(grace);
    let server = Running::start(drain, app()).await;
    let mut peer = Raw::to(&server).await;
    peer.send(HEAD[0]).await;
    settle(&server).await;

    server.handle.start();

    let report = server.report().await;
    assert_eq!((report.requests_cut, report.is_in_time), (1, false));
}

#[tokio::test]
async fn a_peer_of_http2_that_owes_something_does_not_keep_the_server() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    // It stops in the preface, before its settings, or before it acknowledges anything.
    for sent in [PREFACE[..20].to_vec(), PREFACE.to_vec(), [PREFACE, SETTINGS].concat()] {
        let idle_max = Duration::from_millis(50);
        let drain = Drain::new().wait(Duration::ZERO).idle_max(idle_max).grace(4 * PATIENCE);
        let server = Running::start(drain, app()).await;
        let mut peer = Raw::to(&server).await;
        peer.send(&sent).await;
        settle(&server).await;

        server.handle.start();

        let report = server.report().await;
        assert_eq!((report.requests_cut, report.is_in_time), (0, true), "{} bytes", sent.len());
    }
}

#[tokio::test]
async fn a_response_that_its_reader_has_not_taken_yet_is_not_cut_for_being_idle() {
    const LENGTH: usize = 32 << 20;
    let app = app().route("/large", get(async || vec![7; LENGTH]));
    let idle_max = Duration::from_millis(20);
    let drain = Drain::new().wait(Duration::ZERO).idle_max(idle_max).grace(4 * PATIENCE);
    let server = Running::start(drain, app).await;
    let mut reader = Raw::to(&server).await;
    reader.send("GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut first = [0; 1024];
    assert_ne!(reader.0.read(&mut first).await.unwrap(), 0);

    server.handle.start();
    server.handle.reached(Phase::Closing).await;
    // That is what is tested: it takes nothing for many times as long as a connection may be idle.
    tokio::time::sleep(20 * idle_max).await;

    let mut rest = Vec::new();
    reader.0.read_to_end(&mut rest).await.unwrap();
    assert!(LENGTH <= rest.len() + first.len());
    assert!(server.report().await.is_in_time);
}
