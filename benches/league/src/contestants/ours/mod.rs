//! evenkeel: its recommended pipeline, the same for every fault.

mod checks;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use evenkeel::{
    active_health::ActiveHealthLayer,
    balance::BalanceLayer,
    breaker::CircuitBreakerLayer,
    core::{
        backoff::Backoff, endpoint::Endpoint, health::outlier::SlowerThanOthers, retry::Budget,
    },
    deadline::DeadlineLayer,
    discovery::{Sender, channel},
    http::{HttpConnector, HttpDeadline, HttpRetry},
    outlier::OutlierLayer,
    per_endpoint::PerEndpoint,
    retry::RetryLayer,
};
use evenkeel_rig::load::{Client, DEADLINE};
use futures_util::{FutureExt, future::BoxFuture};
use http::Request;
use http_body_util::{BodyExt, Empty};
use tower::{ServiceBuilder, ServiceExt, timeout::TimeoutLayer, util::BoxCloneSyncService};

use super::{Announce, Contestant, Running};
use crate::{
    BoxError,
    scene::{Place, Protocol, Scene},
};

/// After this time an attempt without an answer has failed. A call has time for several attempts.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(300);

#[derive(Debug)]
pub(crate) struct Ours;

/// Builds the pipeline, from the call to the wire.
fn pipeline(
    discovery: impl evenkeel::core::discover::Discovery,
    protocol: Protocol,
    seed: u64,
    checks: ActiveHealthLayer<checks::Ask>,
) -> Client {
    let connector = HttpConnector::new().authority("league.internal").watch_connections();
    let connector = match protocol {
        Protocol::Http1 => connector.http1(),
        Protocol::Http2 => connector.http2(),
    };
    let client = ServiceBuilder::new()
        .layer(DeadlineLayer::new(DEADLINE).carry(HttpDeadline))
        .layer(
            RetryLayer::new(Budget::share(20.0))
                // After a 500, only idempotent requests are repeated, such as a GET.
                .rules(HttpRetry::new().statuses([500, 502, 503, 504]))
                .max_attempts(4)
                .backoff(Backoff::full_jitter(Duration::from_millis(5), Duration::from_millis(50)))
                .seed(seed),
        )
        .layer(BalanceLayer::peak_ewma(discovery).seed(seed))
        .layer(outlier().seed(seed))
        .layer(checks.seed(seed))
        .layer(
            CircuitBreakerLayer::new()
                .open_time(Duration::from_millis(200), Duration::from_millis(500))
                .seed(seed),
        )
        .layer(PerEndpoint::new(TimeoutLayer::new(ATTEMPT_TIMEOUT)))
        .service(connector);
    let client = BoxCloneSyncService::new(client);
    Arc::new(move |number| {
        let request = Request::get(format!("/{number}")).body(Empty::<Bytes>::new());
        let call = request.map(|request| client.clone().oneshot(request));
        async move {
            let response = call?.await?;
            let status = response.status().as_u16();
            response.into_body().collect().await?;
            Ok(status)
        }
        .boxed()
    })
}

/// Two of five endpoints may be ejected: after one attempt without an answer, after three failures,
/// or for being much slower than the others. An ejected endpoint gets no calls until a health check
/// passes. A slow endpoint gives few answers, so one call must be enough to detect it. A mean of
/// ten times the median, and at least 50 ms, is required, so that a hiccup in many calls does not
/// eject.
fn outlier() -> OutlierLayer {
    let much_slower = SlowerThanOthers {
        factor: 10.0,
        min_latency: Duration::from_millis(50),
        min_calls: 1,
        ..SlowerThanOthers::default()
    };
    OutlierLayer::new()
        .consecutive_errors(3)
        .consecutive_local_errors(1)
        .latency(much_slower)
        .interval(Duration::from_millis(250))
        .max_ejected_percent(40)
}

impl Contestant for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn about(&self) -> &'static str {
        "evenkeel: deadline, retry, Peak EWMA, ejection, health checks, breaker; informed of leavers"
    }

    fn start<'a>(&'a self, scene: &'a Scene) -> BoxFuture<'a, Result<Running, BoxError>> {
        async move {
            let (sender, discovery) = channel();
            sender.set(scene.addresses());
            let checks = checks::layer(scene.places());
            let client = pipeline(discovery, scene.protocol, scene.seed, checks);
            let announce = Box::new(Announced { sender, places: scene.places().to_vec() });
            Ok(Running { client, announce, proxy: None })
        }
        .boxed()
    }
}

struct Announced {
    sender: Sender,
    places: Vec<Place>,
}

impl Announce for Announced {
    fn remove(&mut self, endpoint: usize) -> Result<(), BoxError> {
        self.sender.remove(&self.places[endpoint].requests.into());
        Ok(())
    }

    fn insert(&mut self, endpoint: usize) -> Result<(), BoxError> {
        self.sender.insert(Endpoint::from(self.places[endpoint].requests));
        Ok(())
    }
}
