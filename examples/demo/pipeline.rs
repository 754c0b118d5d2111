//! The pipeline of the load: retry, balance, ejection, a timeout per attempt, HTTP.

use std::time::Duration;

use bytes::Bytes;
use evenkeel::{
    balance::BalanceLayer,
    core::{discover::Discovery, policy::Policy, retry::Budget},
    http::{HttpConnector, HttpRetry},
    outlier::OutlierLayer,
    per_endpoint::PerEndpoint,
    retry::RetryLayer,
};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use tower::{ServiceBuilder, ServiceExt, timeout::TimeoutLayer, util::BoxCloneSyncService};

use crate::BoxError;

/// The messages of the pipeline: a request without a body, and a response whose body was read.
pub(crate) type Client = BoxCloneSyncService<Request<Empty<Bytes>>, Response<Bytes>, BoxError>;

/// An attempt without an answer within this time is dropped, and the call goes to another endpoint.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(300);

/// Builds the whole pipeline over the endpoints of `discovery`.
pub(crate) fn client(discovery: impl Discovery, policy: impl Policy) -> Client {
    let pipeline = ServiceBuilder::new()
        .layer(RetryLayer::new(Budget::share(20.0)).rules(HttpRetry::new()).max_attempts(4))
        .layer(BalanceLayer::with_policy(discovery, policy))
        .layer(OutlierLayer::new())
        .layer(PerEndpoint::new(TimeoutLayer::new(ATTEMPT_TIMEOUT)))
        .service(HttpConnector::new().authority("work.internal").watch_connections());
    BoxCloneSyncService::new(tower::service_fn(move |request: Request<Empty<Bytes>>| {
        let call = pipeline.clone().oneshot(request);
        async move {
            let (head, body) = call.await?.into_parts();
            Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
        }
    }))
}
