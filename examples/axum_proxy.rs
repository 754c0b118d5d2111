//! A balanced stack as the fallback service of an axum router: requests that the router does not
//! know go to the old servers, and upgraded connections, such as WebSockets, pass in both directions.

use axum::{
    Router,
    body::Body,
    extract::Request,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::get,
};
use evenkeel::{
    balance::BalanceLayer,
    discovery::Fixed,
    http::{ErrorToResponseLayer, HttpConnector},
};
use http::{
    StatusCode,
    header::{CONNECTION, UPGRADE},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional, split},
    net::TcpStream,
};
use tower::ServiceBuilder;

mod common;

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let servers = [common::serve(old("old one")).await?, common::serve(old("old two")).await?];

    let old = ServiceBuilder::new()
        .layer(from_fn(tunnel)) // a stack carries requests and responses; the proxy, what comes after an upgrade
        .layer(ErrorToResponseLayer::new()) // refusals become 503 and the like: axum wants no errors
        .layer(BalanceLayer::round_robin(Fixed::new(servers)))
        .service(HttpConnector::<Body>::new());
    let router = Router::new().route("/new", get(|| async { "new" })).fallback_service(old);

    let router = common::serve(router).await?;
    let mut answers = Vec::new();
    for path in ["/new", "/a", "/b"] {
        answers.push(common::get_text(router, path).await?);
    }
    println!("{answers:?}");
    // The first endpoint is random.
    answers.sort();
    assert_eq!(answers, ["new", "old one", "old two"]);

    let mut caller = TcpStream::connect(router).await?;
    let upgrade = "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    caller.write_all(upgrade.as_bytes()).await?;
    caller.write_all(b"over the tunnel").await?;
    let mut echo = Vec::new();
    while !echo.ends_with(b"over the tunnel") {
        assert_ne!(caller.read_buf(&mut echo).await?, 0, "closed after {echo:?}");
    }
    println!("{}", String::from_utf8_lossy(&echo));
    assert!(echo.starts_with(b"HTTP/1.1 101 "));
    Ok(())
}

/// Joins what the caller and the endpoint upgrade to, until both have ended.
async fn tunnel(mut request: Request, next: Next) -> Response {
    let caller = hyper::upgrade::on(&mut request);
    let mut response = next.run(request).await;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let endpoint = hyper::upgrade::on(&mut response);
        tokio::spawn(async move {
            let (caller, endpoint) = tokio::try_join!(caller, endpoint)?;
            copy_bidirectional(&mut TokioIo::new(caller), &mut TokioIo::new(endpoint)).await?;
            Ok::<_, common::BoxError>(())
        });
    }
    response
}

/// A server that says its name, or on `/echo` switches to sending back what it reads.
fn old(name: &'static str) -> Router {
    Router::new().route("/echo", get(echo)).fallback(get(move || async move { name }))
}

async fn echo(mut request: Request) -> impl IntoResponse {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let (mut reader, mut writer) = split(TokioIo::new(upgrade.await?));
        copy(&mut reader, &mut writer).await?;
        writer.shutdown().await?;
        Ok::<_, common::BoxError>(())
    });
    (StatusCode::SWITCHING_PROTOCOLS, [(CONNECTION, "upgrade"), (UPGRADE, "echo")])
}
