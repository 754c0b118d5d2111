//! The pipeline under test: everything that the README recommends.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use evenkeel::{
    balance::BalanceLayer,
    breaker::CircuitBreakerLayer,
    core::{discover::Discovery, node::Node, retry::Budget},
    deadline::DeadlineLayer,
    http::{HttpConnector, HttpDeadline, HttpRetry},
    outlier::OutlierLayer,
    retry::RetryLayer,
};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn, util::BoxCloneSyncService};

use crate::BoxError;

pub(crate) type Client = BoxCloneSyncService<Request<Full<Bytes>>, Response<Bytes>, BoxError>;

/// The client, and the nodes that it balances over.
pub(crate) struct Pipeline {
    pub(crate) client: Client,
    nodes: Box<dyn Fn() -> Vec<Arc<Node>> + Send>,
}

impl Pipeline {
    pub(crate) fn nodes(&self) -> Vec<Arc<Node>> {
        (self.nodes)()
    }
}

pub(crate) fn pipeline(discovery: impl Discovery) -> Pipeline {
    let balance = ServiceBuilder::new()
        .layer(BalanceLayer::peak_ewma(discovery))
        .layer(
            OutlierLayer::new()
                .interval(Duration::from_secs(1))
                .ejection_time(Duration::from_millis(500), Duration::from_secs(5))
                .max_ejected_percent(50),
        )
        .layer(CircuitBreakerLayer::new())
        .service(HttpConnector::new().authority("soak.internal"));
    let nodes = {
        let balance = balance.clone();
        Box::new(move || balance.nodes())
    };
    let retry = RetryLayer::new(Budget::share(20.0))
        .rules(HttpRetry::new().statuses([500, 502, 503, 504]))
        .attempt_timeout(Duration::from_millis(250))
        .max_attempts(4);
    let pipeline =
        DeadlineLayer::new(Duration::from_secs(2)).carry(HttpDeadline).layer(retry.layer(balance));
    let client = service_fn(move |request: Request<Full<Bytes>>| {
        let call = pipeline.clone().oneshot(request);
        async move {
            let (head, body) = call.await?.into_parts();
            Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
        }
    });
    Pipeline { client: BoxCloneSyncService::new(client), nodes }
}
