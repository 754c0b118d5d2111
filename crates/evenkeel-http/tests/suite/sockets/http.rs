//! Requests to healthy servers.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::SeqCst},
};

use evenkeel_core::{
    connect::Connect,
    error::cause,
    why::{Recorder, Why},
};
use evenkeel_http::{HttpConnector, InvalidRequest, RequestError, ServedBy};
use tokio::io::AsyncReadExt;
use tower::ServiceExt;

use crate::sockets::support::{
    Payload, echo, get, listen, node, serve, serve_stream, text, within,
};

async fn ask(connector: &HttpConnector<Payload>, uri: &str) -> String {
    let (node, _) = node(serve(echo).await);
    let response = within(connector.connect(&node).oneshot(get(uri))).await.unwrap();
    text(response).await
}

#[tokio::test]
async fn plain_text_is_http1_unless_told_otherwise() {
    assert_eq!(ask(&HttpConnector::new(), "http://a.b/x").await, "HTTP/1.1 a.b /x ");
    assert_eq!(ask(&HttpConnector::new().http1(), "http://a.b/x").await, "HTTP/1.1 a.b /x ");
    assert_eq!(ask(&HttpConnector::new().http2(), "http://a.b/x").await, "HTTP/2.0 a.b /x ");
}

#[tokio::test]
async fn a_path_alone_is_enough() {
    for (connector, version) in
        [(HttpConnector::new(), "HTTP/1.1"), (HttpConnector::grpc(), "HTTP/2.0")]
    {
        let connector = connector.authority("orders.internal:8080");
        let expected = format!("{version} orders.internal:8080 /x ");
        assert_eq!(ask(&connector, "/x").await, expected);
    }
}

#[tokio::test]
async fn the_host_header_names_the_authority_of_a_path() {
    for connector in [HttpConnector::new(), HttpConnector::new().http2()] {
        let (node, _) = node(serve(echo).await);
        let mut request = get("/x");
        request.headers_mut().insert("host", "b.c".parse().unwrap());
        let response = within(connector.connect(&node).oneshot(request)).await.unwrap();
        assert!(text(response).await.ends_with(" b.c /x "));
    }
}

#[tokio::test]
async fn a_request_without_a_host_names_the_endpoint() {
    for connector in [HttpConnector::new(), HttpConnector::new().http2()] {
        let (node, _) = node(serve(echo).await);
        let response = within(connector.connect(&node).oneshot(get("/x"))).await.unwrap();
        assert_eq!(response.extensions().get::<ServedBy>().unwrap().address(), node.address());
        assert!(text(response).await.ends_with(&format!(" {} /x ", node.address())));
    }
}

#[tokio::test]
async fn only_a_request_that_asks_why_gets_the_record_back() {
    for connector in [HttpConnector::new(), HttpConnector::new().http2()] {
        let (node, _) = node(serve(echo).await);
        let (why, mut request) = (Why::new(), get("/x"));
        request.extensions_mut().insert(why.clone());

        let response = within(connector.connect(&node).oneshot(request)).await.unwrap();
        // The response has what the balancer adds.
        why.add(Recorder::default().decision("p2c", Some(&node)));

        let told = response.extensions().get::<Why>().unwrap().to_string();
        assert_eq!(told, format!("p2c chose {}\n", node.address()));
        let unasked = within(connector.connect(&node).oneshot(get("/x"))).await.unwrap();
        assert!(unasked.extensions().get::<Why>().is_none());
    }
}

#[tokio::test]
async fn a_request_of_another_http_version_is_sent_in_the_version_of_the_connection() {
    for version in [http::Version::HTTP_09, http::Version::HTTP_10, http::Version::HTTP_2] {
        let (node, _) = node(serve(echo).await);
        let mut request = get("/x");
        *request.version_mut() = version;
        let connector = HttpConnector::new();
        let response = within(connector.connect(&node).oneshot(request)).await.unwrap();
        assert!(text(response).await.starts_with("HTTP/1.1"), "{version:?}");
    }
}

#[tokio::test]
async fn an_invalid_host_is_the_fault_of_the_request() {
    let (node, unreachable) = node(serve(echo).await);
    let mut request = get("/x");
    request.headers_mut().insert("host", "a b".parse().unwrap());

    let connector = HttpConnector::new();
    let error = within(connector.connect(&node).oneshot(request)).await.unwrap_err();

    assert_eq!(cause::<InvalidRequest>(error.as_ref()), Some(&InvalidRequest::Authority));
    assert!(cause::<RequestError>(error.as_ref()).unwrap().is_callers_fault());
    assert_eq!(unreachable.times(), 0);
}

#[tokio::test]
async fn connections_are_used_again_whatever_the_host() {
    for connector in [HttpConnector::new(), HttpConnector::new().http2()] {
        let (listener, address) = listen().await;
        let accepted = Arc::new(AtomicU32::new(0));
        let count = accepted.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, SeqCst);
                tokio::spawn(serve_stream(stream, echo));
            }
        });
        let (node, _) = node(address);
        let service = connector.connect(&node);
        for host in ["a", "b", "c"] {
            let request = get(&format!("http://{host}/"));
            let response = within(service.clone().oneshot(request)).await.unwrap();
            assert!(text(response).await.ends_with(&format!(" {host} / ")));
        }
        assert_eq!(accepted.load(SeqCst), 1);
    }
}

#[tokio::test]
async fn a_name_is_resolved_and_its_families_are_tried() {
    let address = serve(echo).await;
    // A server only on IPv4, under a name that often has an IPv6 address as well.
    let name = format!("localhost:{}", address.port().unwrap());
    let (node, _) = node(name.parse::<evenkeel_core::endpoint::Address>().unwrap());

    let connector = HttpConnector::new();
    let response = within(connector.connect(&node).oneshot(get("/x"))).await.unwrap();

    assert_eq!(text(response).await, format!("HTTP/1.1 {name} /x "));
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_is_an_endpoint() {
    let path = std::env::temp_dir().join(format!("evenkeel-http-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve_stream(stream, echo));
        }
    });
    let (node, _) = node(evenkeel_core::endpoint::Address::unix(&path));

    for (connector, version) in
        [(HttpConnector::new(), "HTTP/1.1"), (HttpConnector::new().http2(), "HTTP/2.0")]
    {
        let response = within(connector.connect(&node).oneshot(get("/x"))).await.unwrap();
        assert_eq!(text(response).await, format!("{version} localhost /x "));
    }
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test]
async fn connections_close_with_the_last_clone_of_the_service() {
    for connector in [HttpConnector::new(), HttpConnector::new().http2()] {
        let (listener, address) = listen().await;
        let (closed, end) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            serve_stream(stream, echo).await;
            closed.send(()).unwrap();
        });
        let (node, _) = node(address);
        let service = connector.connect(&node);
        let clone = service.clone();
        text(within(service.oneshot(get("/x"))).await.unwrap()).await;
        text(within(clone.oneshot(get("/x"))).await.unwrap()).await;

        within(end).await.unwrap();
    }
}

#[tokio::test]
async fn nothing_is_connected_before_there_is_a_request() {
    let (listener, address) = listen().await;
    let (node, _) = node(address);
    let service = HttpConnector::<Payload>::new().connect(&node);
    let probe = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();

    let (mut first, peer) = within(listener.accept()).await.unwrap();

    assert_eq!(peer, probe.local_addr().unwrap(), "the first to connect is not the service");
    drop((service, probe));
    assert_eq!(within(first.read(&mut [0])).await.unwrap(), 0);
}
