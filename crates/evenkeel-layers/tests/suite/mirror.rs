//! What a mirror promises: copies of a share, and nothing that a caller could notice.

use std::{
    convert::Infallible,
    future::{pending, ready},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use evenkeel_core::{BoxError, endpoint::Endpoint, mirror::Copies, node::Node};
use evenkeel_layers::{balance::BalanceLayer, mirror::MirrorLayer};
use futures_util::FutureExt;
use tokio::time::{Instant, advance, sleep};
use tower::{Layer, Service, ServiceExt, service_fn};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Echoes at once.
fn echo() -> impl Service<u32, Response = u32, Error = Infallible, Future: Send> + Clone {
    service_fn(|n: u32| ready(Ok::<_, Infallible>(n)))
}

/// Counts its requests, and answers after `delay`.
fn counter(
    delay: Duration,
) -> (Arc<AtomicU32>, impl Service<u32, Response = (), Error = BoxError, Future: Send> + Clone) {
    let count = Arc::new(AtomicU32::new(0));
    let counted = count.clone();
    let service = service_fn(move |_: u32| {
        counted.fetch_add(1, SeqCst);
        async move {
            sleep(delay).await;
            Ok(())
        }
    });
    (count, service)
}

/// Lets every task run that can run.
async fn tick() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_share_of_the_requests_is_copied() {
    let (count, mirror) = counter(ms(0));
    let mut service = MirrorLayer::new(mirror, 25.0).seed(1).layer(echo());
    for n in 0..2_000 {
        assert_eq!(service.ready().await.unwrap().call(n).await, Ok(n));
        tick().await;
    }
    let copied = count.load(SeqCst);
    assert!((400..600).contains(&copied), "{copied} of 2000");
}

#[tokio::test(start_paused = true)]
async fn all_or_nothing_is_a_share_too() {
    for (percent, expected) in [(0.0, 0), (100.0, 50)] {
        let (count, mirror) = counter(ms(0));
        let mut service = MirrorLayer::new(mirror, percent).seed(1).layer(echo());
        for n in 0..50 {
            service.ready().await.unwrap().call(n).await.unwrap();
            tick().await;
        }
        assert_eq!(count.load(SeqCst), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_mirror_that_hangs_delays_no_call_and_holds_no_more_than_its_bound() {
    let (count, mirror) = counter(Duration::from_secs(3_600));
    let layer = MirrorLayer::new(mirror, 100.0).max_in_flight(3).timeout(Duration::from_secs(2));
    let mut service = layer.layer(echo());

    let began = Instant::now();
    for n in 0..10 {
        // Clones share the bound.
        assert_eq!(service.clone().oneshot(n).now_or_never(), Some(Ok(n)));
        tick().await;
    }
    assert_eq!(began.elapsed(), ms(0));
    assert_eq!(count.load(SeqCst), 3);

    // Copies that are cut off in time make room for others.
    advance(Duration::from_secs(2)).await;
    tick().await;
    service.ready().await.unwrap().call(1).await.unwrap();
    tick().await;
    assert_eq!(count.load(SeqCst), 4);
}

#[tokio::test(start_paused = true)]
async fn a_mirror_that_is_never_ready_fails_or_panics_affects_no_call() {
    #[derive(Clone)]
    struct NeverReady;
    impl Service<u32> for NeverReady {
        type Response = ();
        type Error = BoxError;
        type Future = std::future::Ready<Result<(), BoxError>>;
        fn poll_ready(
            &mut self,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), BoxError>> {
            std::task::Poll::Pending
        }
        fn call(&mut self, _: u32) -> Self::Future {
            unreachable!("it is never ready")
        }
    }
    let fails = service_fn(|_: u32| ready(Err::<(), BoxError>("no".into())));
    let panics = service_fn(|_: u32| -> std::future::Ready<Result<(), BoxError>> {
        panic!("because the test says so")
    });

    let mut over_unready = MirrorLayer::new(NeverReady, 100.0).layer(echo());
    let mut over_failing = MirrorLayer::new(fails, 100.0).layer(echo());
    let mut over_panicking = MirrorLayer::new(panics, 100.0).layer(echo());
    for n in 0..100 {
        assert_eq!(over_unready.ready().await.unwrap().call(n).await, Ok(n));
        assert_eq!(over_failing.ready().await.unwrap().call(n).await, Ok(n));
        assert_eq!(over_panicking.ready().await.unwrap().call(n).await, Ok(n));
        tick().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_cancelled_is_not_copied_and_leaves_its_room() {
    let (count, mirror) = counter(ms(0));
    let hangs = service_fn(|_: u32| pending::<Result<u32, BoxError>>());
    let layer = MirrorLayer::new(mirror.clone(), 100.0).max_in_flight(1);
    let mut service = layer.layer(hangs);
    for n in 0..5 {
        let mut call = Box::pin(service.ready().await.unwrap().call(n));
        assert!(call.as_mut().now_or_never().is_none());
    }
    tick().await;
    assert_eq!(count.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn an_incomplete_request_is_not_copied() {
    #[derive(Clone)]
    struct Gone;
    impl Copies<u32> for Gone {
        type Request = u32;
        type Kept = ();
        fn pass(&self, request: u32) -> u32 {
            request
        }
        fn keep(&self, request: u32) -> ((), u32) {
            ((), request)
        }
        fn copy(&self, (): ()) -> Option<u32> {
            None
        }
    }
    let (count, mirror) = counter(ms(0));
    let mut service = MirrorLayer::new(mirror, 100.0).rules(Gone).max_in_flight(1).layer(echo());
    for n in 0..5 {
        assert_eq!(service.ready().await.unwrap().call(n).await, Ok(n));
        tick().await;
    }
    assert_eq!(count.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_failed_is_copied_and_its_error_passed_on() {
    let (count, mirror) = counter(ms(0));
    let fails = service_fn(|_: u32| ready(Err::<u32, &str>("as it is")));
    let mut service = MirrorLayer::new(mirror, 100.0).layer(fails);
    assert_eq!(service.ready().await.unwrap().call(1).await, Err("as it is"));
    tick().await;
    assert_eq!(count.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_of_the_mirror_that_never_answers_has_failed_when_time_is_up() {
    let endpoints = vec!["10.0.0.1:80".parse::<Endpoint>().unwrap()];
    let mirror = BalanceLayer::peak_ewma(endpoints)
        .layer(|_: &Arc<Node>| service_fn(|_: u32| pending::<Result<(), Infallible>>()));
    let mut service = MirrorLayer::new(mirror.clone(), 100.0).timeout(ms(100)).layer(echo());
    for n in 0..3 {
        service.ready().await.unwrap().call(n).await.unwrap();
        sleep(ms(200)).await;
    }

    assert_eq!(mirror.nodes()[0].penalty(), 7, "three failures");
}
