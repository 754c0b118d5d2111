//! Servers for the examples, and a plain client to call them.
#![allow(dead_code, reason = "no example needs all of it")]

use std::net::SocketAddr;

use axum::{Router, routing::get};
use bytes::Bytes;
use evenkeel::{balance::BalanceLayer, discovery::Fixed, http::HttpConnector};
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt};

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Serves `router` on a free port of loopback until the example ends.
pub(crate) async fn serve(router: Router) -> Result<SocketAddr, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

/// A server that answers every request with `text`.
pub(crate) async fn serve_text(text: &'static str) -> Result<SocketAddr, BoxError> {
    serve(Router::new().fallback(get(move || async move { text }))).await
}

/// The body of the response of `address` to `path`.
pub(crate) async fn get_text(address: SocketAddr, path: &str) -> Result<String, BoxError> {
    let client = BalanceLayer::pick_first(Fixed::new([address])).layer(HttpConnector::new());
    let request = Request::get(path).body(Empty::<Bytes>::new())?;
    text(client.oneshot(request).await?).await
}

/// The body of a response as text.
pub(crate) async fn text<B>(response: Response<B>) -> Result<String, BoxError>
where
    B: Body<Error: Into<BoxError>>,
{
    let body = response.into_body().collect().await.map_err(Into::into)?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}
