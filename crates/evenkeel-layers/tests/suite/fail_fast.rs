//! Calls that fail at once while no endpoint can take them.

use std::{sync::Arc, time::Duration};

use evenkeel_core::{
    BoxError,
    discover::Update,
    endpoint::Endpoint,
    error::{FailedFast, cause},
    node::Node,
};
use evenkeel_layers::{
    balance::BalanceLayer,
    fail_fast::{FailFast, FailFastLayer},
};
use tokio::time::{Instant, advance};
use tokio_test::{assert_pending, assert_ready, assert_ready_ok, task::spawn};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_test::mock::Mock;

type Handle = tower_test::mock::Handle<u8, u8>;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn service() -> (FailFast<Mock<u8, u8>>, Handle) {
    let (mock, mut handle) = tower_test::mock::pair();
    handle.allow(0);
    (FailFastLayer::new(ms(100)).layer(mock), handle)
}

async fn failure(service: &mut FailFast<Mock<u8, u8>>) -> FailedFast {
    let ready = service.ready().await.expect("ready to fail");
    let error = ready.call(1).await.expect_err("not ready");
    *cause::<FailedFast>(error.as_ref()).expect("failed fast")
}

#[tokio::test(start_paused = true)]
async fn the_first_caller_waits_and_those_after_it_do_not() {
    let (mut service, _handle) = service();
    let began = Instant::now();

    assert!(ms(100) <= failure(&mut service).await.unready);
    assert!((100..=102).contains(&began.elapsed().as_millis()));
    for _ in 0..10 {
        advance(ms(50)).await;
        let before = Instant::now();
        let mut clone = service.clone();
        failure(&mut clone).await;
        assert_eq!(before.elapsed(), Duration::ZERO);
    }
    assert_eq!(failure(&mut service).await.unready.as_millis() / 100, 6);
}

#[tokio::test(start_paused = true)]
async fn calls_that_wait_at_the_same_time_fail_at_the_same_time() {
    let (service, _handle) = service();
    let began = Instant::now();
    let callers: Vec<_> = (0..5)
        .map(|index| {
            let service = service.clone();
            tokio::spawn(async move {
                tokio::time::sleep(ms(10) * index).await;
                service.oneshot(1).await.unwrap_err();
                Instant::now()
            })
        })
        .collect();
    for caller in callers {
        let waited = caller.await.unwrap() - began;
        assert!((100..=102).contains(&waited.as_millis()), "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_call_after_recovery_goes_through_in_every_clone() {
    let (mut service, mut handle) = service();
    failure(&mut service).await;
    let mut clone = service.clone();

    handle.allow(2);
    let mut call = spawn(clone.ready().await.unwrap().call(1));
    assert_pending!(call.poll());
    handle.next_request().await.unwrap().1.send_response(7);
    assert_eq!(assert_ready!(call.poll()).unwrap(), 7);

    // A new silence is a new wait.
    handle.allow(0);
    let mut third = spawn(service.clone());
    third.enter(|cx, mut service| assert_pending!(service.poll_ready(cx)));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_waits_is_woken_by_readiness_before_its_time() {
    let (mut service, mut handle) = service();
    let mut waiting = spawn(service.ready());
    assert_pending!(waiting.poll());
    advance(ms(50)).await;
    assert_pending!(waiting.poll());

    handle.allow(1);
    assert!(waiting.is_woken());
    assert_ready_ok!(waiting.poll());
}

#[tokio::test(start_paused = true)]
async fn after_a_pause_without_calls_the_next_caller_waits_again() {
    let (mut service, _handle) = service();
    failure(&mut service).await;
    advance(Duration::from_secs(60)).await;
    let began = Instant::now();

    failure(&mut service).await;

    assert!((100..=102).contains(&began.elapsed().as_millis()));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_gave_up_leaves_no_trace_in_the_next() {
    let (mut service, mut handle) = service();
    let mut waiting = spawn(service.ready());
    assert_pending!(waiting.poll());
    drop(waiting);
    handle.allow(1);
    advance(ms(99)).await;
    let mut call = spawn(service.ready().await.unwrap().call(1));
    assert_pending!(call.poll());
}

#[tokio::test(start_paused = true)]
async fn above_a_balancer_calls_fail_at_once_until_an_endpoint_is_there() {
    let (sender, receiver) = tokio::sync::watch::channel(Vec::<Endpoint>::new());
    #[derive(Clone)]
    struct Watched(tokio::sync::watch::Receiver<Vec<Endpoint>>);
    impl evenkeel_core::discover::Discovery for Watched {
        fn watch(&self) -> evenkeel_core::discover::Watch {
            let sets = tokio_stream::wrappers::WatchStream::new(self.0.clone());
            Box::pin(futures_util::StreamExt::map(sets, |set| Ok(Update::Set(set))))
        }
    }
    let client = ServiceBuilder::new()
        .layer(FailFastLayer::new(ms(50)))
        .layer(BalanceLayer::p2c(Watched(receiver)))
        .service(|_: &Arc<Node>| service_fn(|n: u8| async move { Ok::<_, BoxError>(n + 1) }));
    let began = Instant::now();
    let error = client.clone().oneshot(1).await.unwrap_err();
    assert!(cause::<FailedFast>(error.as_ref()).is_some(), "{error}");
    for _ in 0..10 {
        client.clone().oneshot(1).await.unwrap_err();
    }
    assert!(began.elapsed() < ms(55), "{:?}", began.elapsed());

    sender.send(vec!["10.0.0.1:80".parse().unwrap()]).unwrap();
    for _ in 0..5 {
        tokio::task::yield_now().await;
    }
    assert_eq!(client.clone().oneshot(1).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_ever_does_not_overflow() {
    let (mock, mut handle) = tower_test::mock::pair::<u8, u8>();
    handle.allow(0);
    let mut service = FailFastLayer::new(Duration::MAX).layer(mock);
    let mut other = service.clone();

    for service in [&mut service, &mut other] {
        let mut ready = spawn(service.ready());
        assert_pending!(ready.poll());
        advance(ms(1_000)).await;
        assert_pending!(ready.poll());
    }
}
