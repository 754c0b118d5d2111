//! The pipeline that evenkeel recommends.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use evenkeel::{
    active_health::ActiveHealthLayer,
    balance::BalanceLayer,
    concurrency::ConcurrencyLimitLayer,
    core::{BoxError, discover::Discovery, retry::Budget},
    deadline::DeadlineLayer,
    http::{HttpConnector, HttpDeadline, HttpProbe, HttpRetry, ReplayBody},
    outlier::OutlierLayer,
    retry::RetryLayer,
};
use evenkeel_rig::load::DEADLINE;
use futures_util::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use tower::{ServiceBuilder, ServiceExt, util::BoxCloneSyncService};

use super::tracker::Tracked;
use crate::backend::HEALTH_PATH;

type Body = Empty<Bytes>;

/// Makes one call, and returns the status of its answer.
type Ask = Arc<dyn Fn() -> BoxFuture<'static, Result<u16, BoxError>> + Send + Sync>;

/// One balancer with the layers around it.
#[derive(Clone)]
pub(super) struct Pipeline {
    ask: Ask,
}

impl Pipeline {
    /// Builds the pipeline of the README. With more endpoints than can be checked here, it has no
    /// health checks.
    pub(super) fn new(
        discovery: Arc<dyn Discovery>,
        connector: Tracked<HttpConnector<ReplayBody<Body>>>,
        checks: bool,
        seed: u64,
    ) -> Self {
        let balanced = ServiceBuilder::new()
            .layer(DeadlineLayer::new(DEADLINE).carry(HttpDeadline))
            .layer(RetryLayer::new(Budget::share(20.0)).rules(HttpRetry::new()).seed(seed))
            .layer(BalanceLayer::peak_ewma(discovery).seed(seed))
            .layer(OutlierLayer::new().consecutive_local_errors(1).seed(seed));
        let ask = if checks {
            let checks = ActiveHealthLayer::new(HttpProbe::new(HEALTH_PATH)).seed(seed);
            let checked = balanced.layer(checks).layer(ConcurrencyLimitLayer::fixed(64));
            asking(BoxCloneSyncService::new(checked.service(connector)))
        } else {
            let limited = balanced.layer(ConcurrencyLimitLayer::fixed(64));
            asking(BoxCloneSyncService::new(limited.service(connector)))
        };
        Self { ask }
    }

    /// Makes one call, and returns the status of its answer.
    pub(super) async fn call(self) -> Result<u16, BoxError> {
        (self.ask)().await
    }

    /// Calls until a call succeeds, so that everything that starts with the first call has started.
    pub(super) async fn warm_up(self) {
        while self.clone().call().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Hides the type of the response's body.
fn asking<B>(client: BoxCloneSyncService<Request<Body>, Response<B>, BoxError>) -> Ask
where
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    Arc::new(move || {
        let client = client.clone();
        async move {
            let response = client.oneshot(Request::get("/").body(Empty::new())?).await?;
            let status = response.status().as_u16();
            response.into_body().collect().await.map_err(Into::into)?;
            Ok(status)
        }
        .boxed()
    })
}
