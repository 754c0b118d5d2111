//! A few servers that answer with their address, and a balanced client of them.

use std::net::SocketAddr;

use axum::{Router, http::StatusCode, routing::get};
use evenkeel_core::endpoint::Endpoint;
use http::Response;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::net::TcpListener;

/// Starts `count` servers. Each answers with its address, and `/fail` with a 500.
pub(crate) async fn endpoints(count: usize) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for _ in 0..count {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let name = address.to_string();
        let fail = || async { StatusCode::INTERNAL_SERVER_ERROR };
        let router =
            Router::new().route("/fail", get(fail)).fallback(get(move || async move { name }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        endpoints.push(address.into());
    }
    endpoints
}

/// The server that answered.
pub(crate) async fn name<B: Body<Error: std::fmt::Debug>>(response: Response<B>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}
