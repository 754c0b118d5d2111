//! The bytes on the wire: those that an endpoint gets, and those that a caller of a proxy gets.

mod delays;
mod fields;
mod framing;
mod tunnels;

use std::net::SocketAddr;

use evenkeel_core::{connect::Connect, node::Node};
use evenkeel_http::HttpConnector;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tower::ServiceExt;

type Payload = Full<Bytes>;

/// Nothing here may hang: anything that takes longer than this has failed.
async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(std::time::Duration::from_secs(20), future).await.expect("it hangs")
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// The head of a message, in lower case. The next read begins after it.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

/// A server that answers each head with `answer`, and records the heads and the number of connections.
async fn answering(answer: &'static str) -> (SocketAddr, mpsc::UnboundedReceiver<(usize, String)>) {
    let (listener, address) = listen().await;
    let (told, heads) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut connections = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            connections += 1;
            let told = told.clone();
            tokio::spawn(async move {
                loop {
                    let head = head(&mut stream).await;
                    if head.is_empty() {
                        break;
                    }
                    told.send((connections, head)).unwrap();
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    (address, heads)
}

/// Sends a request to a server with `answer`. Returns the head that it got, and the response.
async fn exchange(
    connector: &HttpConnector<Payload>,
    request: Request<Payload>,
    answer: &'static str,
) -> (String, Response<Incoming>) {
    let (address, mut heads) = answering(answer).await;
    let node = std::sync::Arc::new(Node::new(address.into()));
    let response = within(connector.connect(&node).oneshot(request)).await.unwrap();
    (within(heads.recv()).await.unwrap().1, response)
}

fn has_field(head: &str, name: &str) -> bool {
    head.lines().any(|line| line.starts_with(&format!("{name}:")))
}
