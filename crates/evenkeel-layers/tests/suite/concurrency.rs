//! A concurrency limit that stands alone around a service.

use std::{pin::pin, time::Duration};

use evenkeel_core::{
    BoxError,
    error::{LimitReached, cause},
    limit::{Aimd, Limit, Sample},
    time::Timestamp,
    traffic::AnyTraffic,
};
use evenkeel_layers::concurrency::{ConcurrencyLimit, ConcurrencyLimitLayer, LimitHandle};
use futures_util::FutureExt;
use tokio::time::{advance, sleep};
use tokio_test::{assert_pending, assert_ready, task::spawn};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_test::mock::{Mock, SendResponse};

type Handle = tower_test::mock::Handle<u32, u32>;
type Client = ConcurrencyLimit<Mock<u32, u32>, AnyTraffic>;

fn service(layer: &ConcurrencyLimitLayer) -> (Client, Handle) {
    let (mock, handle) = tower_test::mock::pair();
    (layer.layer(mock), handle)
}

async fn call(service: &mut Client) -> impl Future<Output = Result<u32, BoxError>> + use<> {
    service.ready().await.expect("a mock is ready").call(1)
}

async fn refusal(service: &mut Client) -> LimitReached {
    let error = call(service).await.await.expect_err("full");
    *cause::<LimitReached>(error.as_ref()).unwrap_or_else(|| panic!("no refusal: {error}"))
}

async fn next(handle: &mut Handle) -> SendResponse<u32> {
    handle.next_request().await.expect("a request").1
}

fn limit(layer: &ConcurrencyLimitLayer) -> LimitHandle {
    layer.limits().list().pop().expect("one limit, made with the first call")
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_the_limit_are_refused_at_once_in_every_clone() {
    let layer = ConcurrencyLimitLayer::fixed(2);
    let (mut service, mut handle) = service(&layer);
    let mut clone = service.clone();
    let first = call(&mut service).await;
    let _second = call(&mut clone).await;

    let refused = refusal(&mut clone).await;

    assert_eq!((refused.limit, refused.waited), (2, Duration::ZERO));
    assert_eq!(limit(&layer).in_flight(), 2);
    next(&mut handle).await.send_response(7);
    assert_eq!(first.await.unwrap(), 7);
    let _third = call(&mut service).await;
    refusal(&mut service).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_ready_cloned_or_idle_holds_no_permit() {
    let layer = ConcurrencyLimitLayer::fixed(1);
    let (mut service, _handle) = service(&layer);
    let mut idle: Vec<_> = (0..10).map(|_| service.clone()).collect();
    for clone in &mut idle {
        clone.ready().await.unwrap();
    }

    let _called = call(&mut service).await;
    assert_eq!(limit(&layer).in_flight(), 1);
    refusal(&mut idle[0]).await;
}

#[tokio::test(start_paused = true)]
async fn a_permit_comes_back_however_the_call_ends_and_wherever_it_is_cancelled() {
    let layer = ConcurrencyLimitLayer::fixed(1);
    let (mut service, mut handle) = service(&layer);

    drop(call(&mut service).await);
    assert_eq!(limit(&layer).in_flight(), 0, "never polled");
    assert!(handle.next_request().await.is_some());

    let mut polled = spawn(call(&mut service).await);
    assert_pending!(polled.poll());
    let _unanswered = next(&mut handle).await;
    assert_eq!(limit(&layer).in_flight(), 1);
    drop(polled);
    assert_eq!(limit(&layer).in_flight(), 0, "under way");

    let failed = call(&mut service).await;
    next(&mut handle).await.send_error("down");
    failed.await.unwrap_err();
    assert_eq!(limit(&layer).in_flight(), 0, "failed");

    let answered = call(&mut service).await;
    next(&mut handle).await.send_response(1);
    answered.await.unwrap();
    assert_eq!(limit(&layer).in_flight(), 0, "answered");
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_service_gives_its_permit_back() {
    let layer = ConcurrencyLimitLayer::fixed(1);
    let broken = service_fn(|_: u32| async {
        if true { panic!("the test says so") } else { Ok::<u32, BoxError>(1) }
    });
    let service = layer.layer(broken);

    let task = tokio::spawn(service.clone().oneshot(1));
    assert!(task.await.unwrap_err().is_panic());

    assert_eq!(limit(&layer).in_flight(), 0);
}

fn waiting() -> ConcurrencyLimitLayer {
    ConcurrencyLimitLayer::fixed(1).wait(2, Duration::from_millis(100))
}

#[tokio::test(start_paused = true)]
async fn waiting_calls_are_served_in_the_order_in_which_they_came() {
    let layer = waiting();
    let (mut service, mut handle) = service(&layer);
    let first = call(&mut service).await;
    let mut second = spawn(call(&mut service).await);
    let mut third = spawn(call(&mut service).await);
    assert_pending!(second.poll());
    assert_pending!(third.poll());
    assert_eq!(limit(&layer).waiting(), 2);
    assert_eq!(refusal(&mut service).await.limit, 1, "the queue is full");

    next(&mut handle).await.send_response(1);
    first.await.unwrap();
    assert!(second.is_woken());
    assert!(!third.is_woken());
    // The second has its permit, which leaves a place in the queue. A new call does not overtake
    // it.
    assert_eq!((limit(&layer).in_flight(), limit(&layer).waiting()), (1, 1));
    let mut late = spawn(call(&mut service).await);
    assert_pending!(late.poll());
    assert_eq!(refusal(&mut service).await.limit, 1, "the queue is full");

    assert_pending!(second.poll());
    next(&mut handle).await.send_response(2);
    assert_eq!(assert_ready!(second.poll()).unwrap(), 2);
    assert!(third.is_woken());
    assert_pending!(third.poll());
    next(&mut handle).await.send_response(3);
    assert!(!late.is_woken());
    assert_eq!(assert_ready!(third.poll()).unwrap(), 3);
    assert_pending!(late.poll());
    next(&mut handle).await.send_response(4);
    assert_eq!(assert_ready!(late.poll()).unwrap(), 4);
    assert_eq!((limit(&layer).in_flight(), limit(&layer).waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_too_long_is_refused_with_the_time_it_waited() {
    let layer = waiting();
    let (mut service, mut handle) = service(&layer);
    let _first = call(&mut service).await;

    let waited = refusal(&mut service).await.waited;

    assert!((100..=101).contains(&waited.as_millis()), "{waited:?}");
    assert_eq!(limit(&layer).waiting(), 0);
    assert!(next(&mut handle).now_or_never().is_some());
    assert!(handle.next_request().now_or_never().is_none(), "the other was not sent");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_woken_and_gave_up_passes_its_permit_on() {
    let layer = waiting();
    let (mut service, mut handle) = service(&layer);
    let first = call(&mut service).await;
    let mut second = spawn(call(&mut service).await);
    let mut third = spawn(call(&mut service).await);
    assert_pending!(second.poll());
    assert_pending!(third.poll());
    next(&mut handle).await.send_response(1);
    first.await.unwrap();
    assert!(second.is_woken());

    drop(second);

    assert!(third.is_woken());
    assert_pending!(third.poll());
    next(&mut handle).await.send_response(3);
    assert_eq!(assert_ready!(third.poll()).unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_order_holds_even_if_a_call_that_was_woken_gives_up() {
    let layer = ConcurrencyLimitLayer::fixed(1).wait(10, Duration::from_secs(1));
    let (mut service, mut handle) = service(&layer);
    let first = call(&mut service).await;
    let mut waiting = Vec::new();
    for name in 2..7 {
        let mut call = spawn(service.ready().await.expect("a mock is ready").call(name));
        assert_pending!(call.poll());
        waiting.push(call);
    }
    next(&mut handle).await.send_response(1);
    first.await.unwrap();
    assert!(waiting[0].is_woken());

    drop(waiting.remove(0));

    let mut order = Vec::new();
    while !waiting.is_empty() {
        // Those that arrived last are polled first.
        waiting.iter_mut().rev().filter(|call| call.is_woken()).for_each(|call| {
            assert_pending!(call.poll());
        });
        let (name, send) = handle.next_request().now_or_never().flatten().expect("one is let in");
        order.push(name);
        send.send_response(name);
        waiting.retain_mut(|call| !call.is_woken() || call.poll().is_pending());
    }
    assert_eq!(order, [3, 4, 5, 6]);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_that_is_never_polled_holds_up_no_other() {
    let layer = waiting();
    let (mut service, mut handle) = service(&layer);
    let first = call(&mut service).await;
    let _forgotten = call(&mut service).await;
    let mut third = spawn(call(&mut service).await);
    assert_pending!(third.poll());

    next(&mut handle).await.send_response(1);
    first.await.unwrap();

    assert_pending!(third.poll());
    next(&mut handle).await.send_response(3);
    assert_eq!(assert_ready!(third.poll()).unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_uses_the_service_that_was_made_ready() {
    let layer = waiting();
    let (mut service, mut handle) = service(&layer);
    handle.allow(2);
    let first = call(&mut service).await;

    // The mock panics if it is called without having been ready.
    let mut second = spawn(call(&mut service).await);
    assert_pending!(second.poll());
    drop(first);
    assert_pending!(second.poll());
    drop(handle.next_request().await);
    next(&mut handle).await.send_response(2);
    assert_eq!(assert_ready!(second.poll()).unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_rises_lets_several_in() {
    #[derive(Debug, Default)]
    struct Jumps(std::sync::atomic::AtomicBool);
    impl Limit for Jumps {
        fn limit(&self) -> u32 {
            if self.0.load(std::sync::atomic::Ordering::Relaxed) { 3 } else { 1 }
        }
        fn sample(&self, _: Sample, _: Timestamp) {
            self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let layer = ConcurrencyLimitLayer::adaptive(Jumps::default).wait(10, Duration::from_secs(1));
    let (mut service, mut handle) = service(&layer);
    let mut first = spawn(call(&mut service).await);
    assert_pending!(first.poll());
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(spawn(call(&mut service).await));
    }
    waiting.iter_mut().for_each(|call| assert_pending!(call.poll()));
    advance(Duration::from_millis(10)).await;

    next(&mut handle).await.send_response(1);
    assert_ready!(first.poll()).unwrap();
    for call in &mut waiting {
        if call.is_woken() {
            assert_pending!(call.poll());
        }
    }

    assert_eq!((limit(&layer).in_flight(), limit(&layer).waiting()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_limit_learns_from_calls_that_end_and_not_from_cancelled_ones() {
    let layer = ConcurrencyLimitLayer::adaptive(|| Aimd::new().bounds(2, 1, 100));
    let (mut service, mut handle) = service(&layer);
    let mut answer = async |answer: fn(SendResponse<u32>)| {
        let mut called = spawn(call(&mut service).await);
        assert_pending!(called.poll());
        advance(Duration::from_millis(10)).await;
        answer(next(&mut handle).await);
        called.is_woken().then(|| assert_ready!(called.poll()))
    };

    assert!(answer(|send| send.send_response(1)).await.is_some());
    assert_eq!(limit(&layer).limit(), 3);
    // Used by one of three, it does not grow. Dropped answers and cancelled calls do not affect it.
    assert!(answer(|send| send.send_response(1)).await.is_some());
    assert_eq!(limit(&layer).limit(), 3);
    assert!(answer(|send| send.send_error("down")).await.is_some());
    assert_eq!(limit(&layer).limit(), 2);

    let mut cancelled = spawn(call(&mut service).await);
    assert_pending!(cancelled.poll());
    sleep(Duration::from_secs(60)).await;
    drop(cancelled);
    assert_eq!((limit(&layer).limit(), limit(&layer).in_flight()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn one_layer_is_a_limit_for_each_service_unless_it_is_shared() {
    for (layer, is_shared) in
        [(ConcurrencyLimitLayer::fixed(1), false), (ConcurrencyLimitLayer::fixed(1).shared(), true)]
    {
        let (mut one, _one) = service(&layer);
        let (mut other, _other) = service(&layer.clone());
        let _called = call(&mut one).await;
        let mut second = pin!(call(&mut other).await);
        let is_refused = second.as_mut().now_or_never().is_some();
        assert_eq!(is_refused, is_shared);
    }
}

#[tokio::test]
async fn sixteen_tasks_never_exceed_the_limit_and_lose_no_call() {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
    static UNDER_WAY: AtomicU32 = AtomicU32::new(0);
    static MOST: AtomicU32 = AtomicU32::new(0);
    let layer = ConcurrencyLimitLayer::fixed(3).wait(100, Duration::from_secs(60));
    let service = layer.layer(service_fn(|n: u32| async move {
        MOST.fetch_max(UNDER_WAY.fetch_add(1, SeqCst) + 1, SeqCst);
        for _ in 0..n % 4 {
            tokio::task::yield_now().await;
        }
        UNDER_WAY.fetch_sub(1, SeqCst);
        Ok::<_, std::convert::Infallible>(n)
    }));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap();

    let tasks: Vec<_> = (0..16_u32)
        .map(|task| {
            let service = service.clone();
            runtime.spawn(async move {
                for call in 0..500 {
                    let number = task * 500 + call;
                    assert_eq!(service.clone().oneshot(number).await.unwrap(), number);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }

    assert!(MOST.load(SeqCst) <= 3);
    assert_eq!((limit(&layer).in_flight(), limit(&layer).waiting()), (0, 0));
    runtime.shutdown_background();
}
