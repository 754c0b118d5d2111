//! A circuit breaker that stands alone around a service.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    attempt::Attempt,
    error::{CircuitOpen, cause},
    health::breaker::{BreakerRules, State},
    outcome::Outcome,
    traffic::{AnyTraffic, Hints, Traffic},
};
use evenkeel_layers::breaker::{CircuitBreaker, CircuitBreakerLayer};
use futures_util::FutureExt;
use tokio::time::sleep;
use tower::{Layer, Service, ServiceExt};
use tower_test::mock::{Mock, SendResponse};

type Handle = tower_test::mock::Handle<&'static str, &'static str>;
type Client = CircuitBreaker<Mock<&'static str, &'static str>, AnyTraffic>;

fn layer() -> CircuitBreakerLayer {
    let mut rules = BreakerRules::default();
    rules.consecutive_failures = Some(2);
    rules.failure_rate = None;
    rules.jitter = 0.0;
    CircuitBreakerLayer::new().rules(rules)
}

fn service(layer: &CircuitBreakerLayer) -> (Client, Handle) {
    let (mock, handle) = tower_test::mock::pair();
    (layer.layer(mock), handle)
}

/// Makes one call, which `answer` answers.
async fn call(
    service: &mut Client,
    handle: &mut Handle,
    answer: impl FnOnce(SendResponse<&'static str>),
) -> Result<&'static str, BoxError> {
    let call = service.ready().await?.call("hello");
    let (_, send) = handle.next_request().await.expect("a request");
    answer(send);
    call.await
}

async fn fail(service: &mut Client, handle: &mut Handle) {
    call(service, handle, |send| send.send_error("down")).await.expect_err("it fails");
}

async fn refusal(service: &mut Client) -> CircuitOpen {
    let ready = service.ready().await.expect("a breaker is always ready");
    let error = ready.call("hello").await.expect_err("open");
    *cause::<CircuitOpen>(error.as_ref()).unwrap_or_else(|| panic!("no refusal: {error}"))
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_refuses_with_the_time_that_is_left_and_does_not_call() {
    let layer = layer();
    let (mut service, mut handle) = service(&layer);
    fail(&mut service, &mut handle).await;
    fail(&mut service, &mut handle).await;
    sleep(Duration::from_millis(300)).await;

    let refused = refusal(&mut service).await;

    assert_eq!(refused.retry_after, Some(Duration::from_millis(700)));
    assert_eq!(refused.to_string(), "circuit breaker open for another 700ms");
    assert!(handle.next_request().now_or_never().is_none());
    assert_eq!(layer.breakers().list()[0].state(), State::Open);
    assert_eq!(layer.breakers().list()[0].address(), None);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_is_ready_while_it_refuses_even_if_its_service_is_not() {
    let (mut service, mut handle) = service(&layer());
    fail(&mut service, &mut handle).await;
    fail(&mut service, &mut handle).await;
    handle.allow(0);

    refusal(&mut service).await;
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_succeeds_closes_it_for_all_clones() {
    let (mut service, mut handle) = service(&layer());
    let mut clone = service.clone();
    fail(&mut service, &mut handle).await;
    fail(&mut clone, &mut handle).await;
    refusal(&mut clone).await;
    sleep(Duration::from_secs(1)).await;
    let trial = service.ready().await.unwrap().call("trial");
    assert_eq!(refusal(&mut clone).await.retry_after, None, "one trial at a time");

    let (_, send) = handle.next_request().await.unwrap();
    send.send_response("hello");
    trial.await.unwrap();

    let answer = call(&mut clone, &mut handle, |send| send.send_response("again")).await;
    assert_eq!(answer.unwrap(), "again");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_trial_gives_its_place_back_wherever_it_is_cancelled() {
    let (mut service, mut handle) = service(&layer());
    fail(&mut service, &mut handle).await;
    fail(&mut service, &mut handle).await;
    sleep(Duration::from_secs(1)).await;

    drop(service.ready().await.unwrap().call("never polled"));
    let mut polled = tokio_test::task::spawn(service.ready().await.unwrap().call("polled"));
    assert!(polled.poll().is_pending());
    drop(polled);
    while handle.next_request().now_or_never().is_some() {}

    let answer = call(&mut service, &mut handle, |send| send.send_response("hello")).await;
    assert_eq!(answer.unwrap(), "hello");
}

#[tokio::test(start_paused = true)]
async fn cancelled_calls_do_not_count() {
    let (mut service, mut handle) = service(&layer());
    for _ in 0..10 {
        drop(service.ready().await.unwrap().call("cancelled"));
        _ = handle.next_request().await;
    }
    let answer = call(&mut service, &mut handle, |send| send.send_response("hello")).await;
    assert_eq!(answer.unwrap(), "hello");
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_opens_between_ready_and_call_refuses_that_call_and_recovers() {
    let (mut service, mut handle) = service(&layer());
    let mut clone = service.clone();
    let ready = clone.ready().await.unwrap();
    fail(&mut service, &mut handle).await;
    fail(&mut service, &mut handle).await;

    let error = ready.call("late").await.unwrap_err();

    assert!(cause::<CircuitOpen>(error.as_ref()).is_some());
    sleep(Duration::from_secs(1)).await;
    let answer = call(&mut clone, &mut handle, |send| send.send_response("hello")).await;
    assert_eq!(answer.unwrap(), "hello");
}

#[tokio::test(start_paused = true)]
async fn slow_calls_open_a_breaker() {
    let layer = layer().slow_calls(Duration::from_millis(100), 1.0).min_calls(3);
    let (mut service, mut handle) = service(&layer);
    for millis in [100, 99, 100, 150] {
        let mut call = tokio_test::task::spawn(service.ready().await.unwrap().call("slow"));
        let (_, send) = handle.next_request().await.unwrap();
        assert!(call.poll().is_pending());
        sleep(Duration::from_millis(millis)).await;
        send.send_response("at last");
        call.await.unwrap();
    }
    assert_eq!(layer.breakers().list()[0].state(), State::Closed, "three of four");

    let layer = layer.slow_calls(Duration::from_millis(100), 0.75).min_calls(4);
    let (mut service, mut handle) = self::service(&layer);
    for millis in [100, 99, 100, 150] {
        let mut call = tokio_test::task::spawn(service.ready().await.unwrap().call("slow"));
        let (_, send) = handle.next_request().await.unwrap();
        assert!(call.poll().is_pending());
        sleep(Duration::from_millis(millis)).await;
        send.send_response("at last");
        call.await.unwrap();
    }
    refusal(&mut service).await;
}

#[tokio::test(start_paused = true)]
async fn a_breaker_can_be_held_by_hand_and_watched() {
    let layer = layer();
    let (mut service, mut handle) = service(&layer);
    let breaker = layer.breakers().list().remove(0);
    let mut states = breaker.watch();

    breaker.hold_open();
    assert_eq!(refusal(&mut service).await.retry_after, None);
    states.changed().await.unwrap();
    assert_eq!(*states.borrow_and_update(), State::HeldOpen);

    breaker.hold_closed();
    for _ in 0..5 {
        fail(&mut service, &mut handle).await;
    }
    breaker.reset();
    fail(&mut service, &mut handle).await;
    assert_eq!(breaker.state(), State::Closed);
    fail(&mut service, &mut handle).await;
    assert_eq!(breaker.state(), State::Open);
}

/// Reads the outcome from the response.
#[derive(Clone)]
struct Codes;

impl Traffic<u16, u16, BoxError> for Codes {
    type Response = u16;

    fn hints<'a>(&self, _: &'a u16) -> Hints<'a> {
        Hints::default()
    }

    fn finish(&self, attempt: Attempt, result: Result<u16, BoxError>) -> Result<u16, BoxError> {
        attempt.finish(match result {
            Ok(..500) => Outcome::Success,
            _ => Outcome::Failure,
        });
        result
    }
}

#[tokio::test(start_paused = true)]
async fn the_traffic_decides_what_is_a_failure() {
    let echo = tower::service_fn(|code: u16| async move { Ok::<_, BoxError>(code) });
    let mut service = layer().traffic(Codes).layer(echo);

    for code in [503, 404, 503, 503] {
        assert_eq!(service.ready().await.unwrap().call(code).await.unwrap(), code);
    }

    assert!(service.ready().await.unwrap().call(200).await.is_err());
}

/// Panics if it is called without having been asked whether it is ready.
struct Strict {
    is_ready: bool,
    fails: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self { is_ready: false, fails: self.fails.clone(), calls: self.calls.clone() }
    }
}

impl Service<()> for Strict {
    type Response = ();
    type Error = BoxError;
    type Future = std::future::Ready<Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        assert!(std::mem::take(&mut self.is_ready), "called before it was ready");
        self.calls.fetch_add(1, SeqCst);
        std::future::ready(if self.fails.load(SeqCst) { Err("down".into()) } else { Ok(()) })
    }
}

#[test]
fn a_rule_that_makes_no_sense_leaves_the_breakers_usable() {
    let layer = CircuitBreakerLayer::new();
    let broken = layer.clone().failure_rate(-1.0);
    let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| broken.layer(())));
    assert!(made.is_err());

    let _service = layer.layer(());

    assert_eq!(layer.breakers().list().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_inner_service_is_never_called_before_it_is_ready() {
    let mut rng = evenkeel_core::rng::Rng::with_seed(5);
    let fails = Arc::new(AtomicBool::new(false));
    let calls = Arc::new(AtomicUsize::new(0));
    let strict = Strict { is_ready: false, fails: fails.clone(), calls: calls.clone() };
    let service = layer().layer(strict);
    let mut clones: Vec<_> = (0..4).map(|_| service.clone()).collect();

    for _ in 0..5_000 {
        let clone = &mut clones[rng.below(4)];
        match rng.below(6) {
            0 => fails.store(rng.below(4) == 0, SeqCst),
            1 => sleep(Duration::from_millis(rng.below_u64(800))).await,
            2 => _ = clone.ready().await.unwrap(),
            3 => *clone = clone.clone(),
            _ => _ = clone.ready().await.unwrap().call(()).await,
        }
    }

    assert!(500 < calls.load(SeqCst));
}

#[tokio::test]
async fn nothing_is_allocated_on_the_way_through_nor_for_a_trial_that_is_refused() {
    let echo = tower::service_fn(|n: u32| std::future::ready(Ok::<_, BoxError>(n)));
    let mut service = CircuitBreakerLayer::new().layer(echo);
    for n in 0..300 {
        service.ready().await.unwrap().call(n).await.unwrap();
    }

    let allocated = allocation_counter::measure(|| {
        for n in 0..300 {
            let call = service.ready().now_or_never().unwrap().unwrap().call(n);
            assert_eq!(call.now_or_never().unwrap().unwrap(), n);
        }
    });

    assert_eq!(allocated.count_total, 0);
}
