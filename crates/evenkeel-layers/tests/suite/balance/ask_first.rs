//! A balancer that asks some endpoints for their load before it sends a request.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and the clock is paused"
)]

use std::{
    collections::HashMap,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use evenkeel_core::{BoxError, load::ServerLoad, node::Node};
use evenkeel_layers::balance::{Balance, BalanceLayer};
use tokio::time::{Instant, sleep};
use tokio_test::{assert_pending, task::spawn};
use tower::{Layer, Service, ServiceExt, service_fn, util::BoxCloneSyncService};

use crate::balance::probe::endpoint;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// How each endpoint answers: the delay, and its requests in flight. If that is `None`, it does not
/// answer.
type Answers = HashMap<&'static str, (u64, Option<f64>)>;

/// How many probes are under way.
#[derive(Clone, Default)]
struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    fn enter(&self) -> Self {
        self.0.fetch_add(1, SeqCst);
        self.clone()
    }
}

struct Left(UnderWay);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, SeqCst);
    }
}

fn layer(answers: &[(&'static str, u64, Option<f64>)], under_way: &UnderWay) -> BalanceLayer {
    let endpoints: Vec<_> = answers.iter().map(|(name, ..)| endpoint(name)).collect();
    let answers: Answers =
        answers.iter().map(|(name, after, load)| (*name, (*after, *load))).collect();
    let (answers, under_way) = (Arc::new(answers), under_way.clone());
    let probe = move |node: Arc<Node>| {
        let left = Left(under_way.enter());
        let address = node.address().to_string();
        let (after, load) = answers[address.trim_end_matches(":80")];
        async move {
            let _left = left;
            sleep(ms(after)).await;
            match load {
                Some(load) if 0.0 <= load => Ok(ServerLoad::new(load, ms(10))),
                Some(_) => Err(BoxError::from("it does not know")),
                None => pending().await,
            }
        }
    };
    BalanceLayer::ask_first(endpoints, probe).seed(1)
}

type Client = BoxCloneSyncService<(), String, BoxError>;

/// Answers with its name.
fn client(layer: &BalanceLayer) -> Client {
    BoxCloneSyncService::new(balance(layer))
}

fn balance(
    layer: &BalanceLayer,
) -> Balance<impl Fn(&Arc<Node>) -> Named + Clone + Send + Sync + 'static> {
    layer.layer(|node: &Arc<Node>| {
        let name = node.address().to_string();
        Named::new(service_fn(move |()| std::future::ready(Ok(name.clone()))))
    })
}

type Named = BoxCloneSyncService<(), String, BoxError>;

async fn asked(client: &Client) -> String {
    client.clone().oneshot(()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_best_endpoint_that_answers_gets_the_request_and_late_ones_are_not_waited_for() {
    let answers = [("a", 2, Some(7.0)), ("b", 3, Some(1.0)), ("late", 900, Some(0.0))];
    let under_way = UnderWay::default();
    let client = client(&layer(&answers, &under_way).probe_timeout(ms(1_000)));
    let began = Instant::now();
    for _ in 0..10 {
        assert_eq!(asked(&client).await, "b:80");
    }
    assert!(began.elapsed() <= ms(40), "{:?}", began.elapsed());
    assert_eq!(under_way.0.load(SeqCst), 0, "a late endpoint is not asked any longer");
}

#[tokio::test(start_paused = true)]
async fn as_many_endpoints_are_asked_as_configured_and_no_more() {
    let answers = ["a", "b", "c", "d", "e", "f"].map(|name| (name, 5, Some(1.0)));
    for count in [2, 3, 5] {
        let under_way = UnderWay::default();
        let mut client = client(&layer(&answers, &under_way).asked(count));
        client.ready().await.unwrap();
        let mut call = spawn(client.call(()));
        assert_pending!(call.poll());
        assert_eq!(under_way.0.load(SeqCst), count);
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_is_chosen_even_if_none_answers_in_time() {
    let answers = [("a", 0, None), ("b", 1, Some(-1.0)), ("c", 0, None)];
    let client = client(&layer(&answers, &UnderWay::default()).probe_timeout(ms(20)));
    let began = Instant::now();
    asked(&client).await;
    assert!((20..=22).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_single_endpoint_is_not_asked() {
    let under_way = UnderWay::default();
    let client = client(&layer(&[("a", 50, None)], &under_way));
    let began = Instant::now();
    assert_eq!(asked(&client).await, "a:80");
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_while_endpoints_are_asked_leaves_no_trace() {
    let answers = [("a", 5, Some(1.0)), ("b", 5, Some(1.0)), ("c", 5, Some(1.0))];
    let under_way = UnderWay::default();
    let mut balance = balance(&layer(&answers, &under_way));
    balance.ready().await.unwrap();
    let mut call = spawn(balance.call(()));
    assert_pending!(call.poll());
    assert_eq!(under_way.0.load(SeqCst), 3);

    drop(call);
    assert_eq!(under_way.0.load(SeqCst), 0);
    assert!(balance.nodes().iter().all(|node| node.in_flight() == 0));
}

#[tokio::test(start_paused = true)]
async fn a_closed_endpoint_is_neither_asked_nor_sent_anything() {
    let answers = [("a", 1, Some(0.0)), ("b", 1, Some(3.0)), ("c", 1, Some(4.0))];
    let mut balance = balance(&layer(&answers, &UnderWay::default()));
    balance.ready().await.unwrap();
    balance.nodes()[0].close(evenkeel_core::node::Gate::Ejected);
    for _ in 0..20 {
        assert_ne!(balance.ready().await.unwrap().call(()).await.unwrap(), "a:80");
    }
}
