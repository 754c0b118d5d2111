//! HTTP/1.1: one small answer, read to its end.

use std::net::SocketAddr;

use bytes::Bytes;
use evenkeel_core::{BoxError, endpoint::Endpoint};
use evenkeel_http::HttpConnector;
use evenkeel_layers::balance::BalanceLayer;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Body;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector as BareConnector},
    rt::TokioExecutor,
};
use tower::{Service, ServiceBuilder};

use crate::contender::{Contender, Entry, Shared};

/// A plain client to one server, our balancer to the same server, our balancer over all.
pub(super) fn entries(servers: &[SocketAddr]) -> [Entry; 3] {
    let one = servers[0];
    let all = servers.to_vec();
    [
        Entry::new("hyper-util client, 1 server", move |_| bare(one)),
        Entry::new("balanced, p2c, 1 server", move |_| balanced(&[one])),
        Entry::new("balanced, p2c, 3 servers", move |_| balanced(&all)),
    ]
}

fn bare(server: SocketAddr) -> impl Contender {
    let mut connector = BareConnector::new();
    connector.set_nodelay(true);
    contender(format!("http://{server}/"), Client::builder(TokioExecutor::new()).build(connector))
}

fn balanced(servers: &[SocketAddr]) -> impl Contender + use<> {
    let endpoints: Vec<Endpoint> = servers.iter().copied().map(Endpoint::from).collect();
    let stack = ServiceBuilder::new()
        .layer(BalanceLayer::p2c(endpoints))
        .service(HttpConnector::new().authority("bench.internal"));
    contender("/".to_owned(), stack)
}

fn contender<S, B>(uri: String, client: S) -> impl Contender
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>, Future: Send>
        + Clone
        + Send
        + 'static,
    S::Error: Into<BoxError>,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let uri = http::Uri::try_from(uri).expect("a URI");
    let request = move |_: u64| {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri.clone();
        request
    };
    Shared(ServiceBuilder::new().map_request(request).and_then(read).service(client))
}

async fn read<B>(response: Response<B>) -> Result<usize, BoxError>
where
    B: Body<Error: Into<BoxError>>,
{
    let body = response.into_body().collect().await.map_err(Into::into)?;
    Ok(body.to_bytes().len())
}
