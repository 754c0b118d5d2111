//! How a balancer starts, moves between runtimes, and ends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use evenkeel_core::{
    endpoint::Endpoint,
    error::{AllEndpointsClosed, NoEndpoints, NoRuntime, cause},
    node::{Gate, Node},
    policy::{Picker, Policy},
};
use evenkeel_layers::balance::BalanceLayer;
use tokio::runtime::{Builder, Handle, Runtime};
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::balance::probe::{Answer, Channel, Halt, Readiness, World, endpoint, ready, set, tick};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
}

fn alive_tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

#[test]
fn a_layer_is_applied_outside_a_runtime_and_starts_at_the_first_poll() {
    let world = World::default();
    let balance = world.balance(&BalanceLayer::p2c(Channel::of(&["a"])));

    runtime().block_on(async {
        assert_eq!(alive_tasks(), 0);
        assert_eq!(balance.clone().oneshot(1).await.unwrap(), "a:80");
        assert_eq!(alive_tasks(), 1);
    });
}

#[tokio::test(start_paused = true)]
async fn a_balancer_that_is_called_without_being_made_ready_starts() {
    let world = World::default();
    let mut balance = world.balance(&BalanceLayer::p2c(Channel::of(&["a"])));

    let answer = tokio::time::timeout(Duration::from_millis(1), balance.call(1)).await;

    assert_eq!(answer.expect("an endpoint is there").unwrap(), "a:80");
    let mut only = world.balance(&BalanceLayer::p2c(Channel::of(&["a"])));
    let call = only.call(2);
    drop(only);
    assert_eq!(call.await.unwrap(), "a:80");
}

#[test]
fn a_balancer_that_is_called_unready_on_a_second_runtime_starts_there() {
    let world = World::default();
    let mut balance = world.balance(&BalanceLayer::p2c(Channel::of(&["a"])));
    runtime().block_on(async { balance.call(1).await.unwrap() });
    assert_eq!(world.connections(), 0);

    runtime().block_on(async { assert_eq!(balance.call(2).await.unwrap(), "a:80") });
    assert_eq!(world.host("a").connects(), 2);
}

#[test]
fn a_call_outside_a_runtime_fails_with_that_reason() {
    let world = World::default();
    let mut balance = world.balance(&BalanceLayer::p2c(Channel::of(&["a"])));
    let mut cx = Context::from_waker(Waker::noop());

    let mut call = std::pin::pin!(balance.call(1));

    let Poll::Ready(Err(error)) = call.as_mut().poll(&mut cx) else { panic!("waits nowhere") };
    assert!(cause::<NoRuntime>(error.as_ref()).is_some());
}

#[test]
fn a_poll_outside_a_runtime_fails_with_that_reason() {
    let world = World::default();
    let mut balance = world.balance(&BalanceLayer::p2c(Channel::of(&["a"])));
    let mut cx = Context::from_waker(Waker::noop());

    let Poll::Ready(Err(error)) = Service::<u32>::poll_ready(&mut balance, &mut cx) else {
        panic!("neither ready nor pending");
    };

    assert!(cause::<NoRuntime>(error.as_ref()).is_some());
    assert_eq!(runtime().block_on(balance.oneshot(1)).unwrap(), "a:80", "and recovers");
}

#[test]
fn a_wait_outside_a_runtime_fails_with_that_reason_and_does_not_panic() {
    let world = World::default();
    let mut balance = world.balance(&BalanceLayer::p2c(Channel::of(&["a"])));
    let mut cx = Context::from_waker(Waker::noop());
    let runtime = runtime();
    runtime.block_on(async { balance.clone().oneshot(1).await.unwrap() });

    assert!(Service::<u32>::poll_ready(&mut balance, &mut cx).is_ready());
    world.host("a").is(Readiness::NotReady);
    let mut call = std::pin::pin!(balance.call(1));
    let Poll::Ready(Err(error)) = call.as_mut().poll(&mut cx) else { panic!("waits nowhere") };
    assert!(cause::<NoRuntime>(error.as_ref()).is_some());

    world.host("a").node().close(Gate::Limit);
    let Poll::Ready(Err(error)) = Service::<u32>::poll_ready(&mut balance, &mut cx) else {
        panic!("waits nowhere");
    };
    assert!(cause::<NoRuntime>(error.as_ref()).is_some());
}

#[test]
fn a_balancer_works_again_on_a_second_runtime_after_the_first_has_ended() {
    let world = World::default();
    let balance = world.balance(&BalanceLayer::p2c(Channel::of(&["a", "b"])));
    for round in 1..4 {
        let runtime = runtime();
        for _ in 0..4 {
            runtime.block_on(balance.clone().oneshot(1)).unwrap();
        }
        assert_eq!(world.connections(), 2);
        assert_eq!(world.host("a").connects(), round);
        drop(runtime);
        assert_eq!(world.connections(), 0);
    }
}

#[test]
fn a_wait_that_began_on_a_runtime_that_has_ended_goes_on_on_the_next() {
    let world = World::default();
    let discovery = Channel::of(&[]);
    let mut balance = world.balance(&BalanceLayer::p2c(discovery.clone()));
    runtime().block_on(async {
        let mut waiting = tokio_test::task::spawn(ready(&mut balance));
        assert!(waiting.poll().is_pending());
    });

    runtime().block_on(async {
        let error = ready(&mut balance).await.unwrap_err();
        assert!(cause::<NoEndpoints>(error.as_ref()).is_some());
    });
}

#[test]
fn a_request_that_outlives_its_runtime_does_not_hide_its_endpoint_from_the_next() {
    let world = World::default();
    let mut balance = world.balance(&BalanceLayer::p2c(Channel::of(&["a"])));
    world.host("a").answers(Answer::Held);
    let mut held = None;
    runtime().block_on(async {
        let held = held.insert(tokio_test::task::spawn(ready(&mut balance).await.unwrap().call(1)));
        assert!(held.poll().is_pending());
    });

    runtime().block_on(async {
        world.host("a").answers(Answer::AtOnce);
        assert_eq!(balance.clone().oneshot(1).await.unwrap(), "a:80");
        assert_eq!(balance.nodes().len(), 1);
    });
    drop(held);
    assert_eq!(world.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_oneshot_on_the_only_clone_is_answered() {
    let world = World::default();
    let balance = world.balance(&BalanceLayer::p2c(Channel::of(&["a"])));
    world.host("a").answers(Answer::Held);
    let host = world.host("a");
    let answer = tokio::spawn(balance.oneshot(1));
    for _ in 0..3 {
        tick().await;
    }

    host.release();

    assert_eq!(answer.await.unwrap().unwrap(), "a:80");
    tick().await;
    assert_eq!(world.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_oneshot_on_the_only_clone_takes_another_endpoint_when_the_first_is_not_ready() {
    let world = World::default();
    let balance =
        world.balance(&crate::balance::probe::from_the_first(Channel::of(&["a", "b", "c"])));
    world.host("a").is(Readiness::NotReady);
    world.host("b").is(Readiness::NotReady);
    world.host("c").is(Readiness::NotReady);
    let answer = tokio::spawn(balance.oneshot(1));
    for _ in 0..3 {
        tick().await;
    }

    world.host("b").is(Readiness::Ready);

    assert_eq!(answer.await.unwrap().unwrap(), "b:80");
}

#[tokio::test(start_paused = true)]
async fn the_last_clone_ends_the_background_task_and_drops_all_services() {
    let world = World::default();
    let mut balance = world.balance(&BalanceLayer::p2c(Channel::of(&["a", "b"])));
    ready(&mut balance).await.unwrap();
    let clone = balance.clone();
    drop(balance);
    tick().await;
    assert_eq!((alive_tasks(), world.connections()), (1, 2));

    drop(clone);
    tick().await;

    assert_eq!((alive_tasks(), world.connections()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_balancer_that_is_dropped_while_it_waits_ends_its_task() {
    let world = World::default();
    let mut balance = world.balance(&BalanceLayer::p2c(Channel::of(&[])));
    let mut waiting = tokio_test::task::spawn(ready(&mut balance));
    assert!(waiting.poll().is_pending());
    tick().await;
    drop(waiting);

    drop(balance);
    tick().await;

    assert_eq!(alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn two_balancers_of_one_layer_share_nothing() {
    let world = World::default();
    let layer = BalanceLayer::p2c(Channel::of(&["a"]));
    let mut one = world.balance(&layer);
    let mut other = world.balance(&layer);
    ready(&mut one).await.unwrap();
    ready(&mut other).await.unwrap();
    assert_eq!(world.host("a").connections(), 2);

    one.nodes()[0].close(Gate::Ejected);

    assert!(other.nodes()[0].is_open());
}

/// Panics when it is asked for the second set.
#[derive(Debug, Default)]
struct PanicsLater(AtomicUsize);

impl Policy for PanicsLater {
    fn name(&self) -> &'static str {
        "panics_later"
    }

    fn build(&self, nodes: &[Arc<Node>], previous: Option<&dyn Picker>) -> Box<dyn Picker> {
        assert!(self.0.fetch_add(1, SeqCst) < 2, "the policy panics because the test says so");
        evenkeel_core::policy::RoundRobin.build(nodes, previous)
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_panics_leaves_a_refusal_and_nothing_that_looks_open() {
    let world = World::default();
    let discovery = Channel::of(&["a"]);
    let layer = BalanceLayer::with_policy(discovery.clone(), PanicsLater::default());
    let mut balance = world.balance(&layer.max_wait(Duration::from_millis(50)));
    ready(&mut balance).await.unwrap();

    discovery.insert(endpoint("b"));
    tick().await;

    let error = ready(&mut balance).await.unwrap_err();
    assert!(cause::<AllEndpointsClosed>(error.as_ref()).is_some());
    assert_eq!(world.connections(), 0);
}

#[test]
fn a_runtime_that_a_panic_ends_does_not_end_the_balancer() {
    let world = World::default();
    let balance = world.balance(&BalanceLayer::p2c(Channel::of(&["a"])));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime().block_on(async {
            balance.clone().oneshot(1).await.unwrap();
            panic!("the test panics");
        });
    }));
    assert!(panicked.is_err());

    assert_eq!(runtime().block_on(balance.oneshot(1)).unwrap(), "a:80");
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_replays_and_clones_draw_different_numbers() {
    async fn picks(seed: u64) -> Vec<Vec<String>> {
        let names: Vec<String> = (0..16).map(|index| format!("host-{index}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let balance =
            World::default().balance(&BalanceLayer::random(Channel::of(&names)).seed(seed));
        let mut clones: Vec<_> = (0..3).map(|_| balance.clone()).collect();
        let mut picks = Vec::new();
        for clone in &mut clones {
            let mut of_clone = Vec::new();
            for _ in 0..20 {
                of_clone.push(ready(clone).await.unwrap().call(1).await.unwrap());
            }
            picks.push(of_clone);
        }
        picks
    }

    let one = picks(7).await;

    assert_eq!(one, picks(7).await);
    assert_ne!(one, picks(8).await);
    assert_ne!(one[0], one[1]);
    assert_ne!(one[1], one[2]);
}

#[test]
fn requests_run_on_many_threads_while_the_set_changes_and_none_fails() {
    let world = World::default();
    let discovery = Channel::of(&["a", "b", "c"]);
    let balance = world.balance(&BalanceLayer::p2c(discovery.clone()));
    let runtime = Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();

    runtime.block_on(async {
        let requests: Vec<_> = (0..8)
            .map(|_| {
                let mut balance = balance.clone();
                tokio::spawn(async move {
                    for _ in 0..2_000 {
                        ready(&mut balance).await.unwrap().call(1).await.unwrap();
                    }
                })
            })
            .collect();
        for round in 0..200 {
            let names = [["a", "b"], ["b", "c"], ["c", "a"]][round % 3];
            discovery.send(set(&names));
            tokio::task::yield_now().await;
        }
        for request in requests {
            request.await.unwrap();
        }
    });
    drop(balance);
    drop(runtime);

    for name in ["a", "b", "c"] {
        assert!(world.host(name).nodes().iter().all(|node| node.in_flight() == 0));
    }
    assert_eq!(world.connections(), 0);
    world.assert_contract_kept();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_clone_may_be_dropped_with_its_call_on_any_thread() {
    for call in 0..2_000 {
        let endpoints = vec!["10.0.0.1:80".parse::<Endpoint>().unwrap()];
        let balance = BalanceLayer::p2c(endpoints).layer(|_: &Arc<Node>| {
            service_fn(|request: u64| async move { Ok::<_, std::convert::Infallible>(request) })
        });
        assert_eq!(balance.oneshot(call).await.expect("its endpoint is open"), call);
    }
}

#[test]
fn a_runtime_that_is_not_driven_does_not_keep_the_callers_of_others_waiting() {
    let world = World::default();
    let discovery = Channel::of(&[]);
    let mut balance = world.balance(&BalanceLayer::p2c(discovery.clone()));
    let resting = runtime();
    resting.block_on(async {
        let mut waiting = tokio_test::task::spawn(ready(&mut balance));
        assert!(waiting.poll().is_pending());
        tick().await;
    });

    discovery.send(set(&["a"]));
    let driven = runtime();
    for request in 0..3 {
        assert_eq!(driven.block_on(balance.clone().oneshot(request)).unwrap(), "a:80");
    }
    assert_eq!(world.host("a").connects(), 1, "its task begins once");

    // When driven again, the first has nothing left of it, and its callers share what there is.
    resting.block_on(async {
        tick().await;
        assert_eq!(alive_tasks(), 0);
        assert_eq!(balance.clone().oneshot(1).await.unwrap(), "a:80");
    });
    drop(driven);
    assert_eq!(resting.block_on(balance.clone().oneshot(1)).unwrap(), "a:80");
}

#[test]
fn the_set_is_followed_again_where_it_is_used_though_its_runtime_rests() {
    let world = World::default();
    let discovery = Channel::of(&["a"]);
    let mut balance = world.balance(&BalanceLayer::p2c(discovery.clone()));
    let resting = runtime();
    resting.block_on(async { balance.clone().oneshot(1).await.unwrap() });
    discovery.send(set(&["b"]));

    let driven = runtime();
    driven.block_on(async {
        let is_left = async {
            // No call waits: the endpoint that has left is still open.
            while ready(&mut balance).await.unwrap().call(1).await.unwrap() == "a:80" {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), is_left).await.expect("b is used");
        assert_eq!(balance.nodes().len(), 1);
    });
    drop(resting);
    assert_eq!(driven.block_on(balance.clone().oneshot(1)).unwrap(), "b:80");
    assert_eq!(world.connections(), 1);
}

#[test]
fn a_call_without_readiness_finds_the_set_though_the_runtime_of_the_first_rests() {
    let world = World::default();
    let discovery = Channel::of(&[]);
    let mut balance = world.balance(&BalanceLayer::p2c(discovery.clone()));
    let resting = runtime();
    resting.block_on(async {
        let mut waiting = tokio_test::task::spawn(balance.call(1));
        assert!(waiting.poll().is_pending());
        tick().await;
    });
    discovery.send(set(&["a"]));

    assert_eq!(runtime().block_on(balance.call(1)).unwrap(), "a:80");
}

#[test]
fn a_task_that_answers_stays_where_it_is_while_other_runtimes_call() {
    let world = World::default();
    let balance = world.balance(&BalanceLayer::p2c(Channel::of(&["a"])));
    let (home, other) = (runtime(), runtime());
    home.block_on(async { balance.clone().oneshot(1).await.unwrap() });
    for _ in 0..5 {
        other.block_on(async {
            tokio::time::advance(Duration::from_secs(5)).await;
            balance.clone().oneshot(1).await.unwrap();
        });
        // It was asked whether it is driven, and answers.
        home.block_on(tick());
    }
    assert_eq!(world.host("a").connects(), 1);

    // Now its runtime rests.
    for _ in 0..2 {
        other.block_on(async {
            tokio::time::advance(Duration::from_secs(5)).await;
            balance.clone().oneshot(1).await.unwrap();
        });
    }
    assert_eq!(world.host("a").connects(), 2);
}

/// Halts while it builds a picker.
#[derive(Clone, Debug, Default)]
struct HaltsInBuild(Arc<Halt>);

impl Policy for HaltsInBuild {
    fn name(&self) -> &'static str {
        "halts_in_build"
    }

    fn build(&self, nodes: &[Arc<Node>], previous: Option<&dyn Picker>) -> Box<dyn Picker> {
        self.0.pass();
        evenkeel_core::policy::RoundRobin.build(nodes, previous)
    }
}

#[test]
fn a_task_that_was_replaced_while_it_made_a_set_does_not_overwrite_the_new_set() {
    let (world, discovery, policy) =
        (World::default(), Channel::of(&["a"]), HaltsInBuild::default());
    let layer = BalanceLayer::with_policy(discovery.clone(), policy.clone());
    let mut balance = world.balance(&layer);
    let (slow, driven) = (runtime(), runtime());
    slow.block_on(async { ready(&mut balance).await.map(drop) }).unwrap();
    let (is_here, go) = policy.0.arm();
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
        discovery.send(set(&["c"]));
        driven.block_on(async {
            let is_used = async {
                while ready(&mut balance).await.unwrap().call(1).await.unwrap() != "c:80" {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), is_used).await.expect("c is used");
        });
        go.send(()).unwrap();
        replaced.join().unwrap();
    });

    let addresses: Vec<_> = balance.nodes().iter().map(|node| node.address().to_string()).collect();
    assert_eq!(addresses, ["c:80"]);
    assert_eq!(driven.block_on(balance.oneshot(1)).unwrap(), "c:80");
}

#[test]
fn a_task_that_panicked_is_not_begun_again_for_callers_on_another_runtime() {
    let (world, discovery) = (World::default(), Channel::of(&["a"]));
    let layer = BalanceLayer::with_policy(discovery.clone(), PanicsLater::default());
    let mut balance = world.balance(&layer.max_wait(Duration::from_secs(1)));
    let first = runtime();
    first.block_on(async {
        ready(&mut balance).await.unwrap();
        discovery.insert(endpoint("b"));
        tick().await;
    });

    runtime().block_on(async {
        for _ in 0..3 {
            let error = ready(&mut balance).await.unwrap_err();
            assert!(cause::<AllEndpointsClosed>(error.as_ref()).is_some());
        }
    });

    assert_eq!(world.host("a").connects(), 1);
}
