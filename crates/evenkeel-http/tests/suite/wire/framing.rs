//! Where a body ends, on which all hops must agree.

use evenkeel_core::BoxError;
use http_body_util::StreamBody;
use hyper::body::{Body, Frame};

use super::{
    fields::{OK, proxy, sent},
    *,
};

fn of_unknown_length() -> impl Body<Data = Bytes, Error = BoxError> + Send + Unpin {
    StreamBody::new(tokio_stream::iter([Ok(Frame::data(Bytes::from_static(b"hi")))]))
}

/// Sends `request` through a proxy to an endpoint that answers with `answer`. Returns the status that comes back,
/// and how many heads the endpoint got.
async fn proxied(request: &str, answer: &'static str) -> (String, usize) {
    let (endpoint, mut heads) = answering(answer).await;
    let mut caller = TcpStream::connect(proxy(endpoint).await).await.unwrap();
    caller.write_all(request.as_bytes()).await.unwrap();
    let head = within(head(&mut caller)).await;
    let status = head.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let mut got = 0;
    while heads.try_recv().is_ok() {
        got += 1;
    }
    (status, got)
}

#[tokio::test]
async fn a_transfer_coding_that_a_proxy_does_not_understand_goes_no_further() {
    for coding in ["gzip, chunked", "chunked, chunked", "chunked;a=b, chunked", "x, chunked"] {
        let request =
            format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n");
        assert_eq!(proxied(&request, OK).await, ("501".to_owned(), 0), "{coding}");
    }
    let on_two_lines = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\
        Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(proxied(on_two_lines, OK).await, ("501".to_owned(), 0));
    let named = "POST / HTTP/1.1\r\nHost: a\r\nConnection: transfer-encoding\r\n\
        Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(proxied(named, OK).await, ("501".to_owned(), 0));

    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for answer in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close, transfer-encoding\r\nTransfer-Encoding: gzip\r\n\r\n",
    ] {
        assert_eq!(proxied(request, answer).await, ("502".to_owned(), 1), "{answer}");
    }
}

#[tokio::test]
async fn a_connection_field_does_not_remove_the_framing_of_a_body() {
    for fields in [
        [("x", "1"), ("transfer-encoding", "chunked")],
        [("connection", "transfer-encoding"), ("transfer-encoding", "chunked")],
        [("content-length", "7"), ("transfer-encoding", "chunked")],
        [("connection", "te, Transfer-Encoding, close"), ("transfer-encoding", "Chunked")],
    ] {
        let (listener, address) = listen().await;
        let got = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let head = head(&mut stream).await;
            let mut body = vec![0; if has_field(&head, "transfer-encoding") { 12 } else { 0 }];
            stream.read_exact(&mut body).await.unwrap();
            stream.write_all(OK.as_bytes()).await.unwrap();
            (head, body)
        });
        let node = std::sync::Arc::new(Node::new(address.into()));
        let mut request = Request::get("/").header("x-end", "1");
        for (name, value) in fields {
            request = request.header(name, value);
        }

        let request = request.body(of_unknown_length()).unwrap();
        within(HttpConnector::new().connect(&node).oneshot(request)).await.unwrap();

        let (head, body) = within(got).await.unwrap();
        assert!(head.contains("\r\ntransfer-encoding: chunked\r\n"), "{head}");
        assert!(!has_field(&head, "content-length") && has_field(&head, "x-end"), "{head}");
        assert_eq!(body, b"2\r\nhi\r\n0\r\n\r\n");
    }
}

#[tokio::test]
async fn of_two_lengths_none_is_believed_unless_they_agree() {
    let (address, mut heads) = answering(OK).await;
    let node = std::sync::Arc::new(Node::new(address.into()));
    // As they can come over HTTP/2.
    for lengths in [["2", "3"], ["2, 3", ""], ["2", "+2"], ["-2", "-2"]] {
        let mut request = Request::get("/");
        for length in lengths.iter().filter(|length| !length.is_empty()) {
            request = request.header("content-length", *length);
        }
        let request = request.body(of_unknown_length()).unwrap();

        let error = within(HttpConnector::new().connect(&node).oneshot(request)).await.unwrap_err();

        assert_eq!(evenkeel_http::error_status(error.as_ref()), 400, "{lengths:?}: {error}");
        assert!(heads.try_recv().is_err());
    }

    let head = sent("POST", &[("content-length", "0"), ("content-length", "0")]).await;
    assert_eq!(head.matches("content-length").count(), 1, "{head}");
}
