//! A plain hyper client that uses the endpoints in turn, as a client without a balancer.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;
use evenkeel_rig::load::Client;
use futures_util::{FutureExt, future::BoxFuture};
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client as HyperClient, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use super::{Contestant, Running, Untold};
use crate::{
    BoxError,
    scene::{Protocol, Scene},
};

/// The client of all contestants except ours and tonic, with its defaults.
pub(super) type Plain = HyperClient<HttpConnector, Empty<Bytes>>;

pub(super) fn plain(protocol: Protocol) -> Plain {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    HyperClient::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_only(protocol == Protocol::Http2)
        .build(connector)
}

/// Sends a request, and reads the whole answer.
pub(super) async fn get(client: Plain, uri: Uri) -> Result<u16, BoxError> {
    let response = client.request(Request::get(uri).body(Empty::new())?).await?;
    let status = response.status().as_u16();
    response.into_body().collect().await?;
    Ok(status)
}

#[derive(Debug)]
pub(crate) struct Hyper;

impl Contestant for Hyper {
    fn name(&self) -> &'static str {
        "hyper"
    }

    fn about(&self) -> &'static str {
        "hyper-util's client, each endpoint in turn"
    }

    fn start<'a>(&'a self, scene: &'a Scene) -> BoxFuture<'a, Result<Running, BoxError>> {
        async move {
            let (client, addresses) = (plain(scene.protocol), scene.addresses());
            let turn = Arc::new(AtomicUsize::new(0));
            let client: Client = Arc::new(move |number| {
                let address = addresses[turn.fetch_add(1, Relaxed) % addresses.len()];
                let client = client.clone();
                async move { get(client, format!("http://{address}/{number}").parse()?).await }
                    .boxed()
            });
            Ok(Running { client, announce: Box::new(Untold), proxy: None })
        }
        .boxed()
    }
}
