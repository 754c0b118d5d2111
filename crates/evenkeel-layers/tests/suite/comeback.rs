//! An endpoint that asked for less traffic, or failed, once: it gets its share again afterwards.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use evenkeel_core::{
    attempt::Attempt,
    connect::Connect,
    endpoint::Endpoint,
    node::Node,
    outcome::Outcome,
    policy,
    traffic::{Hints, Traffic},
};
use evenkeel_layers::balance::BalanceLayer;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceExt, service_fn, util::BoxCloneSyncService};

/// What an endpoint answers: its port, and the outcome of the attempt.
type Answer = (u16, Outcome);

/// Reads the outcome of an attempt from the answer.
#[derive(Clone)]
struct ByAnswer;

impl Traffic<(), Answer, BoxError> for ByAnswer {
    type Response = Answer;

    fn hints<'a>(&self, (): &'a ()) -> Hints<'a> {
        Hints::default()
    }

    fn finish(
        &self,
        attempt: Attempt,
        answer: Result<Answer, BoxError>,
    ) -> Result<Answer, BoxError> {
        attempt.finish(answer.as_ref().map_or(Outcome::Failure, |(_, outcome)| *outcome));
        answer
    }
}

type BoxError = evenkeel_core::BoxError;

/// Three endpoints that answer after ten milliseconds. The first answer of the first one differs.
struct Fleet {
    first: Outcome,
    has_said: Arc<AtomicBool>,
}

impl Connect for Fleet {
    type Service = BoxCloneSyncService<(), Answer, BoxError>;
    type Traffic = ByAnswer;

    fn connect(&self, node: &Arc<Node>) -> Self::Service {
        let port: u16 = node.address().to_string().rsplit(':').next().unwrap().parse().unwrap();
        let (first, has_said) = (self.first, self.has_said.clone());
        BoxCloneSyncService::new(service_fn(move |()| -> BoxFuture<'static, _> {
            let has_said = has_said.clone();
            Box::pin(async move {
                sleep(Duration::from_millis(10)).await;
                let is_first = port == 1 && !has_said.swap(true, SeqCst);
                Ok((port, if is_first { first } else { Outcome::Success }))
            })
        }))
    }

    fn traffic(&self) -> ByAnswer {
        ByAnswer
    }
}

/// The shares of the first endpoint after its first answer: in the first five seconds, and in the
/// next sixty-five.
async fn shares(name: &str, first: Outcome) -> [f64; 2] {
    let endpoints: Vec<Endpoint> =
        (1..4).map(|port| format!("10.0.0.1:{port}").parse().unwrap()).collect();
    let policy = policy::by_name(name).unwrap();
    let has_said = Arc::new(AtomicBool::new(false));
    let fleet = Fleet { first, has_said: has_said.clone() };
    let mut client = BalanceLayer::with_policy(endpoints, policy).seed(1).layer(fleet);
    while !has_said.load(SeqCst) {
        client.ready().await.unwrap().call(()).await.unwrap();
    }
    let start = Instant::now();
    let mut counts = [[0; 2]; 2];
    while start.elapsed() < Duration::from_secs(70) {
        let window = usize::from(Duration::from_secs(5) <= start.elapsed());
        let (port, _) = client.ready().await.unwrap().call(()).await.unwrap();
        counts[window][usize::from(port == 1)] += 1;
    }
    counts.map(|[others, own]| f64::from(own) / f64::from(own + others))
}

/// All policies that may choose any endpoint for a request without a key.
fn names() -> impl Iterator<Item = &'static str> {
    policy::names().filter(|name| *name != "pick_first")
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_asks_for_five_seconds_without_requests_gets_its_share_after_them() {
    for name in names() {
        let throttled = Outcome::Throttled(Some(Duration::from_secs(5)));
        let [during, after] = shares(name, throttled).await;
        assert!((0.25..0.42).contains(&after), "{name}: {after:.3}");
        assert!(name != "peak_ewma" || during < 0.01, "{name}: {during:.3}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_failure_costs_no_more_than_some_seconds() {
    for name in names() {
        let [_, after] = shares(name, Outcome::Failure).await;
        assert!((0.25..0.42).contains(&after), "{name}: {after:.3}");
    }
}
