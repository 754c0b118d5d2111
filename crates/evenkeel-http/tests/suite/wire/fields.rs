//! Header fields, in both directions.

use axum::{Router, body::Body};
use evenkeel_http::{ErrorToResponseLayer, HttpConnector, HttpLeaf, SharedClient};
use evenkeel_layers::balance::BalanceLayer;
use http::{Request, header};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tower::{ServiceBuilder, ServiceExt};

use super::*;

pub(super) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// Sends an empty request with these fields. Returns the head that the server got.
pub(super) async fn sent(method: &str, fields: &[(&str, &str)]) -> String {
    let mut request = Request::builder().method(method).uri("http://a.b/x");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Payload::default()).unwrap();
    exchange(&HttpConnector::new(), request, OK).await.0
}

/// A proxy as in `examples/axum_proxy.rs`.
pub(super) async fn proxy(endpoint: SocketAddr) -> SocketAddr {
    let old = ServiceBuilder::new()
        .layer(ErrorToResponseLayer::new())
        .layer(BalanceLayer::round_robin(vec![endpoint.into()]))
        .service(HttpConnector::<Body>::new());
    let (listener, address) = listen().await;
    let router = Router::new().fallback_service(old);
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::test]
async fn hop_by_hop_fields_of_the_caller_are_not_passed_on() {
    let fields = [
        ("connection", "close, X-Hop"),
        ("connection", "TE, Upgrade, HTTP2-Settings"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("te", "gzip, trailers;q=0.5"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAAQAAP__"),
        ("x-end-to-end", "1"),
    ];
    let head = sent("GET", &fields).await;

    for name in ["x-hop", "keep-alive", "proxy-connection", "upgrade", "http2-settings"] {
        assert!(!has_field(&head, name), "{name} went on: {head}");
    }
    assert!(!head.contains("close"), "{head}");
    assert!(head.contains("\r\nte: trailers\r\n"), "{head}");
    assert!(head.contains("\r\nconnection: te\r\n"), "{head}");
    assert!(has_field(&head, "x-end-to-end"), "{head}");
}

#[tokio::test]
async fn a_connection_field_takes_nothing_away_that_is_meant_for_the_endpoint() {
    let fields = [
        ("connection", "host, authorization, x-forwarded-for, cookie, content-length"),
        ("authorization", "Basic YTpi"),
        ("x-forwarded-for", "1.2.3.4"),
        ("cookie", "a=1"),
    ];
    let head = sent("POST", &fields).await;

    for name in ["host", "authorization", "x-forwarded-for", "cookie", "content-length"] {
        assert!(has_field(&head, name), "{name} is missing: {head}");
    }
}

#[tokio::test]
async fn hop_by_hop_fields_of_the_endpoint_are_not_passed_on() {
    let answer = "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nX-End: 1\r\n\
        Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\n\
        Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let request = Request::get("/").body(Payload::default()).unwrap();

    let (_, response) = exchange(&HttpConnector::new(), request, answer).await;

    let names: Vec<_> = response.headers().keys().map(header::HeaderName::as_str).collect();
    assert_eq!(names, ["x-end"]);
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
    assert_eq!(body.to_bytes(), "ok");
}

#[tokio::test]
async fn a_shared_client_does_not_pass_on_hop_by_hop_fields_either() {
    let (address, mut heads) =
        answering("HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nContent-Length: 0\r\n\r\n")
            .await;
    let client: Client<_, Payload> = Client::builder(TokioExecutor::new()).build_http();
    let node = std::sync::Arc::new(Node::new(address.into()));
    let request = Request::get("/").header("connection", "x-hop").header("x-hop", "1");
    let request = request.header("cookie", "a=1").header("cookie", "b=2");
    let request = request.body(Payload::default()).unwrap();

    let connect = SharedClient::new(client);
    let response = within(connect.connect(&node).oneshot(request)).await.unwrap();

    assert!(!response.headers().contains_key("x-hop"));
    let (_, head) = within(heads.recv()).await.unwrap();
    assert!(!has_field(&head, "x-hop"), "{head}");
    assert!(head.contains("\r\ncookie: a=1; b=2\r\n"), "{head}");
}

#[tokio::test]
async fn a_caller_of_a_proxy_that_closes_does_not_close_the_connection_to_the_endpoint() {
    let (endpoint, mut heads) = answering(OK).await;
    let proxy = proxy(endpoint).await;

    for _ in 0..3 {
        let mut caller = TcpStream::connect(proxy).await.unwrap();
        caller.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        assert!(within(head(&mut caller)).await.starts_with("http/1.1 200"));
    }

    let mut connections = 0;
    for _ in 0..3 {
        connections = within(heads.recv()).await.unwrap().0;
    }
    assert_eq!(connections, 1);
}

#[tokio::test]
async fn two_host_lines_are_refused() {
    let (endpoint, _heads) = answering(OK).await;
    let proxy = proxy(endpoint).await;
    let mut caller = TcpStream::connect(proxy).await.unwrap();

    caller.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await.unwrap();

    let head = within(head(&mut caller)).await;
    assert!(head.starts_with("http/1.1 400"), "{head}");
}

#[tokio::test]
async fn an_upgrade_passes_without_the_versions_of_http() {
    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
        Upgrade: websocket\r\n\r\n";
    let request = Request::get("/")
        .header("connection", "keep-alive, Upgrade")
        .header("upgrade", "h2c, websocket, HTTP/3.0")
        .body(Payload::default())
        .unwrap();

    let (head, response) = exchange(&HttpConnector::new(), request, answer).await;

    assert!(head.contains("\r\nupgrade: websocket\r\n"), "{head}");
    assert!(head.contains("\r\nconnection: upgrade\r\n"), "{head}");
    assert_eq!(response.headers()["connection"].to_str().unwrap().to_lowercase(), "upgrade");
    assert_eq!(response.headers()["upgrade"], "websocket");
}

#[tokio::test]
async fn an_upgrade_that_the_connection_field_does_not_name_is_removed() {
    let head = sent("GET", &[("upgrade", "websocket")]).await;

    assert!(!has_field(&head, "upgrade"), "{head}");
}

#[tokio::test]
async fn cookies_over_several_lines_are_joined() {
    let head = sent("GET", &[("cookie", "a=1"), ("x", "1"), ("cookie", "b=2; c=3")]).await;

    assert!(head.contains("\r\ncookie: a=1; b=2; c=3\r\n"), "{head}");
    assert_eq!(head.matches("cookie:").count(), 1, "{head}");
}

#[tokio::test]
async fn an_empty_body_says_so_where_one_is_expected() {
    for method in ["PUT", "POST", "PATCH", "PROPFIND"] {
        let head = sent(method, &[]).await;
        assert!(head.contains("\r\ncontent-length: 0\r\n"), "{head}");
    }
    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        let head = sent(method, &[]).await;
        assert!(!has_field(&head, "content-length"), "{head}");
    }
}

#[tokio::test]
async fn the_zone_of_an_ipv6_address_is_not_sent() {
    for authority in ["[fe80::1%2]:80", "[fe80::1%25eth0]:80"] {
        let request = Request::get("/").body(Payload::default()).unwrap();
        let connector = HttpConnector::new().authority(authority);
        let (head, _) = exchange(&connector, request, OK).await;
        assert!(head.contains("\r\nhost: [fe80::1]:80\r\n"), "{head}");

        let request = Request::get("/").header("host", authority).body(Payload::default()).unwrap();
        let (head, _) = exchange(&HttpConnector::new(), request, OK).await;
        assert!(head.contains("\r\nhost: [fe80::1]:80\r\n"), "{head}");
    }
}

#[tokio::test]
async fn a_custom_service_does_not_pass_on_hop_by_hop_fields_either() {
    let (address, mut heads) =
        answering("HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nContent-Length: 0\r\n\r\n")
            .await;
    let client: Client<_, Payload> = Client::builder(TokioExecutor::new()).build_http();
    let leaf = HttpLeaf::new(move |_: &std::sync::Arc<Node>| client.clone());
    let node = std::sync::Arc::new(Node::new(address.into()));
    let request = Request::get(format!("http://{address}/"));
    let request = request.header("connection", "x-hop").header("x-hop", "1");
    let request = request.header("te", "gzip").header("keep-alive", "timeout=5");
    let request = request.header("cookie", "a=1").header("cookie", "b=2");

    let call = leaf.connect(&node).oneshot(request.body(Payload::default()).unwrap());
    let response = within(call).await.unwrap();

    assert!(!response.headers().contains_key("x-hop"));
    let (_, head) = within(heads.recv()).await.unwrap();
    for name in ["x-hop", "te", "keep-alive", "connection"] {
        assert!(!has_field(&head, name), "{name} went on: {head}");
    }
    assert!(head.contains("\r\ncookie: a=1; b=2\r\n"), "{head}");
}
