//! Connections that continue after the head of their response.

use std::time::Duration;

use axum::{Router, extract::Request as AxumRequest, response::IntoResponse};
use evenkeel_core::{BoxError, error::is_refusal};
use evenkeel_http::{Drain, HttpTraffic, InFlight, LoadMeter, Phase, ReportLoadLayer};
use evenkeel_layers::{
    balance::{Balance, BalanceLayer},
    concurrency::ConcurrencyLimitLayer,
};
use http::{Request, Response, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tower::{Layer, ServiceBuilder, ServiceExt};

use super::*;

const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";

/// A server that switches to echoing all that it reads, also for a CONNECT.
async fn echoing() -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let is_connect = head(&mut stream).await.starts_with("connect");
                let answer = if is_connect { "HTTP/1.1 200 OK\r\n\r\n" } else { SWITCH };
                stream.write_all(answer.as_bytes()).await.unwrap();
                let (mut reader, mut writer) = stream.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
                let _ = writer.shutdown().await;
            });
        }
    });
    address
}

fn upgrade() -> Request<Payload> {
    let request = Request::get("/").header("connection", "upgrade").header("upgrade", "echo");
    request.body(Payload::default()).unwrap()
}

fn connect() -> Request<Payload> {
    Request::connect("example.org:443").body(Payload::default()).unwrap()
}

async fn opened<R>(response: Response<R>) -> TokioIo<Upgraded> {
    TokioIo::new(within(hyper::upgrade::on(response)).await.unwrap())
}

async fn says(tunnel: &mut TokioIo<Upgraded>, text: &[u8]) {
    let mut echo = vec![0; text.len()];
    tunnel.write_all(text).await.unwrap();
    within(tunnel.read_exact(&mut echo)).await.unwrap();
    assert_eq!(echo, text);
}

#[tokio::test]
async fn a_tunnel_is_in_flight_until_both_directions_have_ended() {
    for in_flight in [InFlight::Body, InFlight::Head] {
        for request in [upgrade(), connect()] {
            let client = BalanceLayer::round_robin(vec![echoing().await.into()])
                .layer(HttpConnector::<Payload>::new().in_flight(in_flight));
            let response = within(client.clone().oneshot(request)).await.unwrap();
            let node = client.nodes().remove(0);
            assert_eq!(node.in_flight(), 1);

            let mut tunnel = opened(response).await;
            says(&mut tunnel, b"hello").await;
            assert_eq!(node.in_flight(), 1);

            tunnel.shutdown().await.unwrap();
            assert_eq!(node.in_flight(), 1, "the endpoint may still send");
            assert_eq!(within(tunnel.read(&mut [0])).await.unwrap(), 0);
            assert_eq!(node.in_flight(), 0);
        }
    }
}

#[tokio::test]
async fn a_tunnel_over_http2_is_one() {
    let drain = Drain::new().wait(Duration::ZERO);
    let handle = drain.handle();
    let (listener, address) = listen().await;
    let connected = |request: AxumRequest| async {
        echo(request).await;
        StatusCode::OK
    };
    let server = tokio::spawn(drain.serve(listener, Router::new().fallback(connected)));
    let client = BalanceLayer::round_robin(vec![address.into()])
        .layer(HttpConnector::<Payload>::new().http2());

    let response = within(client.clone().oneshot(connect())).await.unwrap();
    assert_eq!(response.status(), 200);
    let node = client.nodes().remove(0);
    let mut tunnel = opened(response).await;
    says(&mut tunnel, b"hello").await;
    handle.start();
    within(handle.reached(Phase::Closing)).await;
    says(&mut tunnel, b"again").await;
    assert_eq!((node.in_flight(), handle.in_flight()), (1, 1));

    tunnel.shutdown().await.unwrap();
    assert_eq!(within(tunnel.read(&mut [0])).await.unwrap(), 0);
    assert_eq!(node.in_flight(), 0);
    assert!(within(server).await.unwrap().unwrap().is_in_time);
}

#[tokio::test]
async fn a_tunnel_that_is_dropped_or_never_taken_has_ended() {
    let client: Balance<HttpConnector<Payload>> =
        BalanceLayer::round_robin(vec![echoing().await.into()]).layer(HttpConnector::new());
    let taken = opened(within(client.clone().oneshot(upgrade())).await.unwrap()).await;
    let left = within(client.clone().oneshot(upgrade())).await.unwrap();
    let node = client.nodes().remove(0);
    assert_eq!(node.in_flight(), 2);

    drop(taken);
    assert_eq!(node.in_flight(), 1);
    drop(left);
    assert_eq!(node.in_flight(), 0);
}

#[tokio::test]
async fn both_halves_of_a_tunnel_wake_the_tasks_that_wait_on_them() {
    let client: Balance<HttpConnector<Payload>> =
        BalanceLayer::round_robin(vec![echoing().await.into()]).layer(HttpConnector::new());
    let tunnel = opened(within(client.clone().oneshot(upgrade())).await.unwrap()).await;
    let (mut reader, mut writer) = tokio::io::split(tunnel);

    let reading = tokio::spawn(async move {
        let mut text = Vec::new();
        reader.read_to_end(&mut text).await.unwrap();
        text
    });
    let sent: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
    writer.write_all(&sent).await.unwrap();
    writer.shutdown().await.unwrap();

    assert_eq!(within(reading).await.unwrap(), sent);
    assert_eq!(client.nodes()[0].in_flight(), 0);
}

#[tokio::test]
async fn a_limit_counts_tunnels() {
    let client = ServiceBuilder::new()
        .layer(BalanceLayer::round_robin(vec![echoing().await.into()]).max_wait(Duration::ZERO))
        .layer(ConcurrencyLimitLayer::fixed(2))
        .service(HttpConnector::<Payload>::new());
    let mut tunnels = Vec::new();
    for _ in 0..2 {
        let response = within(client.clone().oneshot(upgrade())).await.unwrap();
        tunnels.push(opened(response).await);
    }

    let refused = within(client.clone().oneshot(upgrade())).await.unwrap_err();
    assert!(is_refusal(refused.as_ref()), "{refused}");

    tunnels.clear();
    within(client.clone().oneshot(upgrade())).await.unwrap();
}

/// Switches to echoing all that it reads.
async fn echo(mut request: AxumRequest) -> impl IntoResponse {
    let on_upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = on_upgrade.await {
            let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
            let _ = writer.shutdown().await;
        }
    });
    (StatusCode::SWITCHING_PROTOCOLS, [("connection", "upgrade"), ("upgrade", "echo")])
}

async fn call(address: SocketAddr) -> TcpStream {
    let mut caller = TcpStream::connect(address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    caller.write_all(request).await.unwrap();
    caller
}

async fn answered(caller: &mut TcpStream) {
    let mut answer = [0; 5];
    caller.write_all(b"hello").await.unwrap();
    within(caller.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"hello");
}

#[tokio::test]
async fn a_drain_waits_for_tunnels() {
    let drain = Drain::new().wait(Duration::ZERO).grace(Duration::from_secs(20));
    let handle = drain.handle();
    let (listener, address) = listen().await;
    let server = tokio::spawn(drain.serve(listener, Router::new().fallback(echo)));
    let mut caller = call(address).await;
    assert!(within(head(&mut caller)).await.starts_with("http/1.1 101"));
    assert_eq!(handle.in_flight(), 1);

    handle.start();
    within(handle.reached(Phase::Closing)).await;
    answered(&mut caller).await;
    assert_eq!(handle.in_flight(), 1);
    caller.shutdown().await.unwrap();

    let report = within(server).await.unwrap().unwrap();
    assert_eq!((report.in_flight, report.requests_cut, report.is_in_time), (1, 0, true));
}

#[tokio::test]
async fn a_drain_cuts_tunnels_when_its_time_is_over() {
    for is_own in [true, false] {
        let drain = Drain::new().wait(Duration::ZERO).grace(Duration::ZERO);
        let handle = drain.handle();
        let (listener, address) = listen().await;
        let router = Router::new().fallback(echo);
        let server = tokio::spawn(async move {
            if is_own {
                return drain.serve(listener, router).await;
            }
            let router = router.layer(drain.layer());
            let server = axum::serve(listener, router).with_graceful_shutdown(drain.closing());
            drain.run(server).await
        });
        let mut caller = call(address).await;
        assert!(within(head(&mut caller)).await.starts_with("http/1.1 101"));
        answered(&mut caller).await;

        handle.start();

        let report = within(server).await.unwrap().unwrap();
        assert_eq!((report.in_flight, report.requests_cut, report.is_in_time), (1, 1, false));
        assert!(matches!(within(caller.read(&mut [0])).await, Ok(0) | Err(_)), "still served");
    }
}

#[tokio::test]
async fn an_upgrade_that_is_refused_is_no_tunnel() {
    let drain = Drain::new().wait(Duration::ZERO);
    let handle = drain.handle();
    let (listener, address) = listen().await;
    let app = Router::new().fallback(|| async { StatusCode::FORBIDDEN });
    let server = tokio::spawn(drain.serve(listener, app));
    let mut caller = call(address).await;
    assert!(within(head(&mut caller)).await.starts_with("http/1.1 403"));

    handle.start();

    let report = within(server).await.unwrap().unwrap();
    assert_eq!((report.in_flight, report.is_in_time), (0, true));
}

#[tokio::test]
async fn a_limit_of_a_server_counts_its_tunnels() -> Result<(), BoxError> {
    let drain = Drain::new().wait(Duration::ZERO);
    let meter = LoadMeter::new();
    let app = ServiceBuilder::new()
        .layer(ReportLoadLayer::new(meter.clone()))
        .layer(evenkeel_http::ErrorToResponseLayer::new())
        .layer(ConcurrencyLimitLayer::fixed(1).traffic(HttpTraffic::new()))
        .layer(drain.layer())
        .service(Router::new().fallback(echo));
    let (listener, address) = listen().await;
    let app = Router::new().fallback_service(app);
    tokio::spawn(async move { axum::serve(listener, app).await });
    let mut first = call(address).await;
    assert!(within(head(&mut first)).await.starts_with("http/1.1 101"));
    answered(&mut first).await;
    assert_eq!(meter.in_flight(), 1);

    let mut second = call(address).await;
    assert!(within(head(&mut second)).await.starts_with("http/1.1 503"));

    first.shutdown().await?;
    assert_eq!(within(first.read(&mut [0])).await?, 0);
    within(async {
        while drain.handle().in_flight() + meter.in_flight() as usize != 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut third = call(address).await;
    assert!(within(head(&mut third)).await.starts_with("http/1.1 101"));
    Ok(())
}
