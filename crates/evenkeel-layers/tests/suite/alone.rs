//! Each layer alone around a service that checks how it is used: what holds for all of them.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    error::{LimitReached, Overloaded, cause},
    quota::Rate,
    retry::{AnyRules, Budget},
};
use evenkeel_layers::{
    admission::{LoadShedLayer, ThrottleLayer},
    breaker::CircuitBreakerLayer,
    concurrency::ConcurrencyLimitLayer,
    deadline::DeadlineLayer,
    fail_fast::FailFastLayer,
    hedge::HedgeLayer,
    observe::ObserveLayer,
    rate_limit::RateLimitLayer,
    retry::RetryLayer,
};
use futures_util::{FutureExt, future::join_all};
use tokio::time::{Sleep, advance, sleep};
use tokio_test::task::spawn;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, limit, service_fn};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Not `Clone`, like `io::Error`.
#[derive(Debug)]
struct Failed;

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed")
    }
}

impl std::error::Error for Failed {}

/// Not `Clone` either.
struct Answer(u32);

/// A service that is ready for one call after it was polled to be so. Its clones are not ready
/// because it is. It is pending once before it is ready, and takes ten milliseconds to answer.
struct Strict {
    shared: Arc<Shared>,
    is_ready: bool,
    was_pending: bool,
}

#[derive(Default)]
struct Shared {
    under_way: AtomicU32,
    calls: AtomicU32,
    /// How many calls fail, from the first one on.
    failing: AtomicU32,
}

impl Strict {
    fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: shared.clone(), is_ready: false, was_pending: false }
    }
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self::new(&self.shared)
    }
}

struct Call {
    shared: Arc<Shared>,
    timer: Pin<Box<Sleep>>,
    answer: Option<Result<Answer, Failed>>,
}

impl Future for Call {
    type Output = Result<Answer, Failed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.timer.as_mut().poll(cx).map(|()| self.answer.take().expect("polled after its end"))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.shared.under_way.fetch_sub(1, SeqCst);
    }
}

impl Service<u32> for Strict {
    type Response = Answer;
    type Error = Failed;
    type Future = Call;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        if !std::mem::replace(&mut self.was_pending, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, number: u32) -> Call {
        assert!(std::mem::take(&mut self.is_ready), "called without having been made ready");
        self.was_pending = false;
        self.shared.under_way.fetch_add(1, SeqCst);
        let is_failing = self.shared.calls.fetch_add(1, SeqCst) < self.shared.failing.load(SeqCst);
        let answer = if is_failing { Err(Failed) } else { Ok(Answer(number)) };
        Call { shared: self.shared.clone(), timer: Box::pin(sleep(ms(10))), answer: Some(answer) }
    }
}

/// Makes calls in sequence and together, in clones. A service that was made ready for it answers
/// each, and the error carries what it fails with.
async fn uses_its_service_well<L, S>(layer: L)
where
    L: Layer<Strict, Service = S>,
    S: Service<u32, Response = Answer, Error = BoxError, Future: Send> + Clone + Send + 'static,
{
    let shared = Arc::new(Shared::default());
    let mut service = layer.layer(Strict::new(&shared));
    for number in 0..5 {
        assert_eq!(service.ready().await.unwrap().call(number).await.unwrap().0, number);
    }
    let together = (0..5).map(|number| service.clone().oneshot(number));
    for (number, answer) in join_all(together).await.into_iter().enumerate() {
        assert_eq!(answer.unwrap().0, number as u32);
    }
    // A clone of a ready service is not ready.
    service.ready().await.unwrap();
    assert_eq!(service.clone().oneshot(7).await.unwrap().0, 7);
    assert_eq!(service.call(8).await.unwrap().0, 8);

    shared.failing.store(u32::MAX, SeqCst);
    let error = service.ready().await.unwrap().call(9).await.err().expect("all fail by now");
    assert!(cause::<Failed>(error.as_ref()).is_some(), "{error}");
    drop(service);
    assert_eq!(Arc::strong_count(&shared), 1);
}

/// Cancels a call after each number of polls, once with nothing else under way and once beside an
/// earlier call. Nothing stays in flight, nothing is kept alive, and the next call is answered.
async fn leaves_nothing_behind<L, S>(layer: impl Fn() -> L)
where
    L: Layer<Strict, Service = S>,
    S: Service<u32, Response = Answer, Error = BoxError> + Clone,
{
    for failing in [0, 1] {
        for is_beside in [false, true] {
            for polls in 0..12 {
                let shared = Arc::new(Shared::default());
                let service = layer().layer(Strict::new(&shared));
                let mut other = is_beside.then(|| spawn(service.clone().oneshot(1)));
                for _ in 0..2 {
                    assert!(other.as_mut().is_none_or(|other| other.poll().is_pending()));
                }
                shared.failing.store(failing, SeqCst);
                let mut cancelled = spawn(service.clone().oneshot(2));
                for _ in 0..polls {
                    if cancelled.poll().is_ready() {
                        break;
                    }
                    advance(ms(3)).await;
                }
                drop(cancelled);
                if let Some(other) = other {
                    let _ = other.await;
                }

                let what = format!("after {polls} polls, beside another: {is_beside}");
                assert_eq!(shared.under_way.load(SeqCst), 0, "{what}");
                advance(ms(1_000)).await;
                shared.failing.store(0, SeqCst);
                let next = service.clone().oneshot(3).await;
                assert_eq!(next.unwrap_or_else(|error| panic!("{what}: {error}")).0, 3);
                drop(service);
                assert_eq!(Arc::strong_count(&shared), 1, "{what}");
            }
        }
    }
}

macro_rules! each_layer_alone {
    ($($name:ident: $layer:expr;)*) => {
        mod uses_its_service_well {
            use super::*;

            $(#[tokio::test(start_paused = true)]
            async fn $name() {
                super::uses_its_service_well($layer).await;
            })*
        }

        mod leaves_nothing_behind_wherever_it_is_cancelled {
            use super::*;

            $(#[tokio::test(start_paused = true)]
            async fn $name() {
                super::leaves_nothing_behind(|| $layer).await;
            })*
        }
    };
}

each_layer_alone! {
    retry: RetryLayer::new(Budget::default()).rules(AnyRules::idempotent());
    retry_with_a_timeout: RetryLayer::new(Budget::default())
        .rules(AnyRules::idempotent())
        .attempt_timeout(ms(50));
    hedge: HedgeLayer::after(ms(5), Budget::default()).rules(AnyRules::idempotent());
    hedge_at_once: HedgeLayer::after(Duration::ZERO, Budget::default())
        .rules(AnyRules::idempotent());
    hedge_by_percentile: HedgeLayer::percentile(90.0, Budget::default())
        .rules(AnyRules::idempotent());
    breaker: CircuitBreakerLayer::new();
    breaker_of_one: CircuitBreakerLayer::new()
        .consecutive_failures(1)
        .open_time(ms(100), ms(100));
    rate_limit: RateLimitLayer::per_second(100);
    rate_limit_that_lets_wait: RateLimitLayer::new(Rate::per_second(100).burst(1))
        .wait(Duration::from_secs(1));
    concurrency: ConcurrencyLimitLayer::fixed(8);
    concurrency_with_a_queue: ConcurrencyLimitLayer::fixed(1).wait(8, Duration::from_secs(1));
    concurrency_that_learns: ConcurrencyLimitLayer::vegas();
    throttle: ThrottleLayer::new().window(ms(500));
    load_shedding: LoadShedLayer::fixed(8);
    load_shedding_with_a_queue: LoadShedLayer::fixed(1);
    deadline: DeadlineLayer::new(Duration::from_secs(1));
    fail_fast: FailFastLayer::new(ms(100));
    observe: ServiceBuilder::new()
        .map_err(BoxError::from as fn(Failed) -> BoxError)
        .layer(ObserveLayer::new())
        .into_inner();
}

#[tokio::test(start_paused = true)]
async fn all_layers_together_use_their_service_well_and_leave_nothing_behind() {
    let budget = Budget::default();
    let stack = || {
        ServiceBuilder::new()
            .layer(DeadlineLayer::new(Duration::from_secs(1)))
            .layer(FailFastLayer::new(ms(100)))
            .layer(RetryLayer::new(budget.clone()).rules(AnyRules::idempotent()))
            .layer(
                HedgeLayer::after(ms(5), budget.clone())
                    .rules(AnyRules::idempotent())
                    .below_retry(),
            )
            .layer(ThrottleLayer::new().window(ms(500)))
            .layer(CircuitBreakerLayer::new())
            .layer(RateLimitLayer::per_second(1_000))
            .layer(ConcurrencyLimitLayer::fixed(1).wait(100, ms(500)))
            .into_inner()
    };
    uses_its_service_well(stack()).await;
    leaves_nothing_behind(stack).await;
}

/// tower's `LoadShed` above anything that uses tokio's budget refuses even if there is room.
#[tokio::test]
async fn a_task_that_has_used_up_its_turn_is_not_refused() {
    let echo = service_fn(|number: u32| async move { Ok::<_, BoxError>(number) });
    let limit = ConcurrencyLimitLayer::fixed(1).wait(1, ms(100)).layer(echo);
    let shed = LoadShedLayer::fixed(1).layer(echo);
    while tokio::task::consume_budget().now_or_never().is_some() {}

    assert_eq!(limit.oneshot(1).now_or_never().unwrap().unwrap(), 1);
    assert_eq!(shed.oneshot(2).now_or_never().unwrap().unwrap(), 2);
}

#[tokio::test]
async fn a_refused_call_keeps_nothing_that_its_service_had_reserved() {
    let pending = service_fn(|_: u32| std::future::pending::<Result<u32, BoxError>>());
    let inner = limit::ConcurrencyLimitLayer::new(2).layer(pending);
    let limit = ConcurrencyLimitLayer::fixed(1).layer(inner.clone());
    let shed = LoadShedLayer::fixed(1).max_queue(0).layer(inner);

    async fn refused<S>(service: S) -> BoxError
    where
        S: Service<u32, Response = u32, Error = BoxError> + Clone,
    {
        let (mut first, mut second) = (service.clone(), service.clone());
        let _under_way = first.ready().await.unwrap().call(1);
        let error = second.ready().await.unwrap().call(2).await.unwrap_err();
        // One of two places is free: the refused caller, which still exists, does not hold it.
        let mut third = service;
        assert!(third.ready().now_or_never().is_some(), "the place of {error} is taken");
        error
    }

    assert!(cause::<LimitReached>(refused(limit).await.as_ref()).is_some());
    assert!(cause::<Overloaded>(refused(shed).await.as_ref()).is_some());
}
