//! The pipeline that the load goes through: retry, balance, a timeout per attempt, HTTP.

use std::{
    future::{Ready, ready},
    time::Duration,
};

use bytes::Bytes;
use evenkeel::{
    balance::BalanceLayer,
    core::{discover::Discovery, policy::Policy, traffic::Tried},
    http::HttpConnector,
    per_endpoint::PerEndpoint,
};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use tower::{ServiceBuilder, ServiceExt, retry, timeout::TimeoutLayer, util::BoxCloneSyncService};

use crate::BoxError;

/// What goes through: a request without a body, and the response with its body read.
pub(crate) type Client = BoxCloneSyncService<Request<Empty<Bytes>>, Response<Bytes>, BoxError>;

/// An attempt that has no answer by then is given up, and the call goes elsewhere.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(300);

/// The whole pipeline over the endpoints of `discovery`.
pub(crate) fn client(discovery: impl Discovery, policy: impl Policy) -> Client {
    let pipeline = ServiceBuilder::new()
        .layer(retry::RetryLayer::new(Elsewhere { retries_left: 3 }))
        .layer(BalanceLayer::with_policy(discovery, policy))
        .layer(PerEndpoint::new(TimeoutLayer::new(ATTEMPT_TIMEOUT)))
        .service(HttpConnector::new().authority("work.internal"));
    BoxCloneSyncService::new(tower::service_fn(move |mut request: Request<Empty<Bytes>>| {
        // Shared by all attempts of this call, so that none goes where an earlier one went.
        request.extensions_mut().insert(Tried::default());
        let call = pipeline.clone().oneshot(request);
        async move {
            let (head, body) = call.await?.into_parts();
            Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
        }
    }))
}

/// tower's retry: a failed attempt is repeated at once, and the balancer sends it elsewhere.
#[derive(Clone)]
struct Elsewhere {
    retries_left: u32,
}

impl<B> retry::Policy<Request<Empty<Bytes>>, Response<B>, BoxError> for Elsewhere {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<Empty<Bytes>>,
        result: &mut Result<Response<B>, BoxError>,
    ) -> Option<Ready<()>> {
        let failed = result.as_ref().map_or(true, |response| response.status().is_server_error());
        if !failed || self.retries_left == 0 {
            return None;
        }
        self.retries_left -= 1;
        Some(ready(()))
    }

    fn clone_request(&mut self, request: &Request<Empty<Bytes>>) -> Option<Request<Empty<Bytes>>> {
        Some(request.clone())
    }
}
