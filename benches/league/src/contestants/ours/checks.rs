//! Health checks: an endpoint that fails them gets no requests, and an ejected endpoint returns
//! when it passes them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use evenkeel::{active_health::ActiveHealthLayer, core::node::Node};
use futures_util::future::BoxFuture;
use http::Request;
use http_body_util::Empty;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use crate::{
    BoxError,
    endpoint::HEALTH_PATH,
    scene::{ENDPOINTS, Place},
};

const INTERVAL: Duration = Duration::from_millis(100);
const TIMEOUT: Duration = Duration::from_millis(100);

/// Sends a check to the endpoint's port for health checks, which differs between endpoints here.
pub(super) type Ask =
    Box<dyn Fn(Arc<Node>) -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;

pub(super) fn layer(places: [Place; ENDPOINTS]) -> ActiveHealthLayer<Ask> {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(TIMEOUT));
    let client: Client<_, Empty<Bytes>> =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
    let ask: Ask = Box::new(move |node| {
        let place = places.iter().find(|place| *node.address() == place.requests.into()).copied();
        let client = client.clone();
        Box::pin(async move {
            let place = place.ok_or("an endpoint of another lane")?;
            let request = Request::get(format!("http://{}{HEALTH_PATH}", place.health));
            let answer = client.request(request.body(Empty::new())?).await?;
            if answer.status().is_success() {
                Ok(())
            } else {
                Err(answer.status().to_string().into())
            }
        })
    });
    ActiveHealthLayer::new(ask)
        .interval(INTERVAL)
        .interval_edge(INTERVAL / 2)
        .timeout(TIMEOUT)
        .fall(2)
        .rise(1)
}
