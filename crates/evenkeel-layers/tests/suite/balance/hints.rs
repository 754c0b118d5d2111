//! What a request says about where it wants to go.

use std::{sync::Arc, time::Duration};

use evenkeel_core::{
    BoxError,
    attempt::Attempt,
    connect::Connect,
    endpoint::Address,
    error::{AllEndpointsExcluded, cause},
    node::{Gate, Node},
    outcome::Outcome,
    traffic::{Hints, Traffic, Tried},
    why::Why,
};
use evenkeel_layers::balance::{Balance, BalanceLayer};
use tokio::runtime::Builder;
use tower::{Layer, ServiceExt};

use crate::balance::probe::{Channel, Halt, Probe, Readiness, World, address, set, tick};

#[derive(Clone, Default)]
struct Request {
    tried: Option<Tried>,
    exclude: Vec<Address>,
    prefer: Vec<Address>,
    why: Option<Why>,
}

#[derive(Clone)]
struct Hinted;

impl Traffic<Request, String, BoxError> for Hinted {
    type Response = String;

    fn hints<'a>(&self, request: &'a Request) -> Hints<'a> {
        Hints {
            hash: None,
            subset: None,
            tried: request.tried.as_ref(),
            exclude: &request.exclude,
            prefer: &request.prefer,
            why: request.why.as_ref(),
            ..Hints::default()
        }
    }

    fn finish(
        &self,
        attempt: Attempt,
        result: Result<String, BoxError>,
    ) -> Result<String, BoxError> {
        attempt.finish(Outcome::Ignored);
        result
    }
}

struct HintedConnect(World, Arc<Halt>);

impl Connect for HintedConnect {
    type Service = Probe;
    type Traffic = Hinted;

    fn connect(&self, node: &Arc<Node>) -> Probe {
        self.1.pass();
        self.0.connect(node)
    }

    fn traffic(&self) -> Hinted {
        Hinted
    }
}

async fn balance(world: &World, names: &[&str]) -> Balance<HintedConnect> {
    let layer = BalanceLayer::random(Channel::of(names)).seed(5);
    let mut balance = layer.layer(HintedConnect(world.clone(), Arc::default()));
    ServiceExt::<Request>::ready(&mut balance).await.expect("endpoints are known");
    balance
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_was_tried_is_avoided_while_another_is_open() {
    let world = World::default();
    let balance = balance(&world, &["a", "b", "c"]).await;
    for _ in 0..20 {
        let request = Request { tried: Some(Tried::default()), ..Request::default() };
        let mut answers = Vec::new();
        for _ in 0..3 {
            answers.push(balance.clone().oneshot(request.clone()).await.unwrap());
        }
        answers.sort();
        assert_eq!(answers, ["a:80", "b:80", "c:80"]);

        balance.clone().oneshot(request.clone()).await.expect("all tried, any will do");
        assert_eq!(request.tried.unwrap().attempts(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_endpoint_that_got_the_request_counts_as_tried() {
    let world = World::default();
    let balance = balance(&world, &["a", "b", "c", "d"]).await;
    ["a", "b"].iter().for_each(|name| world.host(name).is(Readiness::NotReady));
    for _ in 0..20 {
        let tried = Tried::default();
        let request = Request { tried: Some(tried.clone()), ..Request::default() };
        let first = balance.clone().oneshot(request.clone()).await.unwrap();
        let second = balance.clone().oneshot(request).await.unwrap();
        assert_ne!(first, second);
    }
}

#[tokio::test(start_paused = true)]
async fn an_excluded_endpoint_is_never_used() {
    let world = World::default();
    let balance = balance(&world, &["a", "b"]).await;
    let request = Request { exclude: vec![address("a")], ..Request::default() };

    for _ in 0..20 {
        assert_eq!(balance.clone().oneshot(request.clone()).await.unwrap(), "b:80");
    }
    world.host("b").is(Readiness::NotReady);
    assert!(balance.clone().oneshot(request).await.is_err());

    assert_eq!(world.host("a").calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_excludes_all_open_endpoints_is_refused_at_once() {
    let world = World::default();
    let balance = balance(&world, &["a", "b", "c"]).await;
    world.host("c").node().close(Gate::Ejected);
    let request = Request { exclude: vec![address("a"), address("b")], ..Request::default() };

    let mut refused = tokio_test::task::spawn(balance.oneshot(request));

    let std::task::Poll::Ready(Err(error)) = refused.poll() else { panic!("not at once") };
    assert!(cause::<AllEndpointsExcluded>(error.as_ref()).is_some());
}

#[tokio::test(start_paused = true)]
async fn the_first_preferred_endpoint_that_is_open_is_used() {
    let world = World::default();
    let balance = balance(&world, &["a", "b", "c"]).await;
    let prefer = vec![address("gone"), address("b"), address("c")];
    let request = Request { prefer, ..Request::default() };
    for _ in 0..10 {
        assert_eq!(balance.clone().oneshot(request.clone()).await.unwrap(), "b:80");
    }

    world.host("b").node().close(Gate::Ejected);
    for _ in 0..10 {
        assert_eq!(balance.clone().oneshot(request.clone()).await.unwrap(), "c:80");
    }

    world.host("c").node().close(Gate::Ejected);
    assert_eq!(balance.oneshot(request).await.unwrap(), "a:80");
}

#[tokio::test(start_paused = true)]
async fn a_preferred_endpoint_that_was_tried_gives_way() {
    let world = World::default();
    let balance = balance(&world, &["a", "b"]).await;
    let request =
        Request { tried: Some(Tried::default()), prefer: vec![address("a")], ..Request::default() };

    assert_eq!(balance.clone().oneshot(request.clone()).await.unwrap(), "a:80");
    assert_eq!(balance.oneshot(request).await.unwrap(), "b:80");
}

#[tokio::test(start_paused = true)]
async fn a_repaired_endpoint_can_be_preferred() {
    let world = World::default();
    let balance = balance(&world, &["a", "b"]).await;
    let request = Request { prefer: vec![address("a")], ..Request::default() };
    world.host("a").is(Readiness::Broken);
    assert_eq!(balance.clone().oneshot(request.clone()).await.unwrap(), "b:80");
    world.host("a").is(Readiness::Ready);
    crate::balance::probe::tick().await;

    assert_eq!(balance.oneshot(request).await.unwrap(), "a:80");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_asks_is_told_why_each_attempt_went_to_its_endpoint() {
    let world = World::default();
    let balance = balance(&world, &["a", "b", "c"]).await;
    world.host("b").node().close(Gate::Ejected);
    let why = Why::new();
    let tried = Tried::default();
    let request = Request { tried: Some(tried), why: Some(why.clone()), ..Request::default() };

    let mut answers = Vec::new();
    for _ in 0..2 {
        answers.push(balance.clone().oneshot(request.clone()).await.unwrap());
    }

    let decisions = why.decisions();
    assert_eq!(decisions.len(), 2, "{why}");
    for (decision, answer) in decisions.iter().zip(&answers) {
        assert_eq!(decision.policy, "random");
        assert_eq!(&decision.chosen.as_ref().unwrap().to_string(), answer);
    }
    let avoided = decisions[1].looked.iter().filter(|looked| looked.is_avoided);
    let is_first = |looked: &evenkeel_core::why::Looked| looked.address.to_string() == answers[0];
    assert!(avoided.clone().all(is_first), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_preferred_endpoint_and_one_chosen_by_failing_open_are_reported_as_such() {
    let world = World::default();
    let balance = balance(&world, &["a", "b"]).await;
    let why = Why::new();
    let prefer = vec![address("b")];
    let request = Request { prefer, why: Some(why.clone()), ..Request::default() };
    balance.clone().oneshot(request).await.unwrap();
    assert!(why.to_string().contains("the request prefers it"), "{why}");

    ["a", "b"].iter().for_each(|name| _ = world.host(name).node().close(Gate::Ejected));
    let why = Why::new();
    let request = Request { why: Some(why.clone()), ..Request::default() };
    balance.clone().oneshot(request).await.unwrap();
    assert!(why.to_string().contains("no endpoint is open"), "{why}");
    assert!(why.to_string().contains("closed by ejected"), "{why}");
}

/// If two sets name the same address, its entry must be that of the task that manages it.
#[test]
fn a_task_that_was_replaced_while_it_connects_takes_no_endpoint_from_those_that_prefer_it() {
    let runtime =
        || Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (world, discovery, halt) = (World::default(), Channel::of(&["a"]), Arc::<Halt>::default());
    let layer = BalanceLayer::random(discovery.clone()).seed(5);
    let mut balance = layer.layer(HintedConnect(world, halt.clone()));
    let (slow, driven) = (runtime(), runtime());
    slow.block_on(async { ServiceExt::<Request>::ready(&mut balance).await.map(drop) }).unwrap();
    let (is_here, go) = halt.arm();
    discovery.send(set(&["b"]));

    std::thread::scope(|scope| {
        let replaced = scope.spawn(|| {
            slow.block_on(async {
                for _ in 0..5 {
                    tick().await;
                }
            });
        });
        is_here.recv().unwrap();
        discovery.send(set(&["a", "b"]));
        driven.block_on(async {
            let are_known = async {
                while balance.nodes().len() < 2 {
                    ServiceExt::<Request>::ready(&mut balance).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), are_known).await.expect("both are there");
        });
        go.send(()).unwrap();
        replaced.join().unwrap();
    });

    for name in ["a", "b"] {
        let request = Request { prefer: vec![address(name)], ..Request::default() };
        for _ in 0..20 {
            let answer = driven.block_on(balance.clone().oneshot(request.clone())).unwrap();
            assert_eq!(answer, format!("{name}:80"));
        }
    }
}
