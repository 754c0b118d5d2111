//! Deadlines, alone and around retries.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Waker},
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    deadline::{CallDeadline, CarryDeadline},
    discover::{Discovery, Update, Watch},
    endpoint::Endpoint,
    error::{DeadlineExceeded, cause},
    node::Node,
    retry::{AnyRules, Budget},
};
use evenkeel_layers::{
    admission::ThrottleLayer, balance::BalanceLayer, breaker::CircuitBreakerLayer,
    concurrency::ConcurrencyLimitLayer, deadline::DeadlineLayer, fail_fast::FailFastLayer,
    hedge::HedgeLayer, observe::ObserveLayer, rate_limit::RateLimitLayer, retry::RetryLayer,
};
use futures_util::{FutureExt, stream};
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, limit, service_fn};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A request that carries its deadline, and the time that its sender gave it.
#[derive(Clone, Copy, Debug, Default)]
struct Timed {
    known: Option<CallDeadline>,
    given: Option<Duration>,
}

#[derive(Clone, Copy)]
struct CarryTimed;

impl CarryDeadline<Timed> for CarryTimed {
    fn deadline(&self, request: &Timed) -> Option<CallDeadline> {
        request.known
    }
    fn given(&self, request: &Timed) -> Option<Duration> {
        request.given
    }
    fn carry(&self, request: &mut Timed, deadline: CallDeadline, remaining: Duration) {
        *request = Timed { known: Some(deadline), given: Some(remaining) };
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_its_deadline_whatever_the_retries_do() {
    let attempts = Arc::new(AtomicU32::new(0));
    let counted = attempts.clone();
    let client = ServiceBuilder::new()
        .layer(DeadlineLayer::new(ms(500)))
        .layer(
            RetryLayer::new(Budget::default())
                .rules(AnyRules::idempotent())
                .attempt_timeout(ms(200))
                .max_attempts(10),
        )
        .service(service_fn(move |_: ()| {
            counted.fetch_add(1, Relaxed);
            std::future::pending::<Result<(), BoxError>>()
        }));
    let start = Instant::now();
    let error = client.oneshot(()).await.unwrap_err();
    assert_eq!(cause::<DeadlineExceeded>(error.as_ref()).unwrap().after, ms(500));
    assert_eq!(start.elapsed(), ms(500));
    assert!((2..=3).contains(&attempts.load(Relaxed)));
}

#[tokio::test(start_paused = true)]
async fn the_earliest_of_all_deadlines_holds() {
    for (given, seen) in [(None, 500), (Some(ms(80)), 80), (Some(ms(9_000)), 500)] {
        let outer = DeadlineLayer::new(ms(500)).carry(CarryTimed);
        let inner = DeadlineLayer::new(ms(700)).carry(CarryTimed);
        let client = ServiceBuilder::new()
            .layer(outer)
            .layer(inner)
            .service(service_fn(|request: Timed| async move { Ok::<_, BoxError>(request.given) }));
        let request = Timed { known: None, given };
        assert_eq!(client.oneshot(request).await.unwrap(), Some(ms(seen)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_too_late_is_not_begun() {
    let echo = service_fn(|request: Timed| async move { Ok::<_, BoxError>(request.known) });
    let mut client = DeadlineLayer::new(ms(500)).carry(CarryTimed).layer(echo);
    let known = client.ready().await.unwrap().call(Timed::default()).await.unwrap();
    sleep(ms(500)).await;
    let late = client.call(Timed { known, given: None }).await.unwrap_err();
    assert!(cause::<DeadlineExceeded>(late.as_ref()).is_some());
}

/// One endpoint, which becomes known after this time.
struct Later(Duration);

impl Discovery for Later {
    fn watch(&self) -> Watch {
        let after = self.0;
        let known = async move {
            sleep(after).await;
            Ok(Update::Set(vec!["10.0.0.1:80".parse::<Endpoint>().unwrap()]))
        };
        Box::pin(stream::once(known))
    }
}

/// An answer given at once by the endpoint that discovery names after `known_after`.
macro_rules! over_a_balancer {
    ($known_after:expr, $($layer:expr),*) => {
        ServiceBuilder::new()
            $(.layer($layer))*
            .layer(BalanceLayer::p2c(Later($known_after)))
            .service(|_: &Arc<Node>| service_fn(|request: Timed| async move {
                Ok::<_, BoxError>(request)
            }))
    };
}

#[tokio::test(start_paused = true)]
async fn the_time_until_an_endpoint_is_there_counts_in_every_order_of_layers() {
    let deadline = || DeadlineLayer::new(ms(200)).carry(CarryTimed);
    let budget = Budget::default();
    let retry = || RetryLayer::new(budget.clone()).rules(AnyRules::idempotent());
    let hedge =
        || HedgeLayer::after(ms(5), budget.clone()).rules(AnyRules::idempotent()).below_retry();
    macro_rules! ends_at_the_deadline {
        ($($layer:expr),*) => {
            for known_after in [ms(201), ms(503), ms(60_000)] {
                let client = over_a_balancer!(known_after, $($layer),*);
                let start = Instant::now();
                let error = client.oneshot(Timed::default()).await.unwrap_err();
                let exceeded = cause::<DeadlineExceeded>(error.as_ref());
                assert_eq!(exceeded.map(|error| error.after), Some(ms(200)), "{error}");
                assert_eq!(start.elapsed(), ms(200));
            }
            let client = over_a_balancer!(ms(150), $($layer),*);
            let answered = client.oneshot(Timed::default()).await.unwrap();
            assert_eq!(answered.given, Some(ms(50)), "what is left when the request leaves");
        };
    }
    ends_at_the_deadline!(deadline());
    ends_at_the_deadline!(deadline(), retry());
    ends_at_the_deadline!(deadline(), retry(), hedge());
    ends_at_the_deadline!(deadline(), FailFastLayer::new(ms(1_000)), retry());
    ends_at_the_deadline!(ObserveLayer::new(), deadline(), FailFastLayer::new(ms(1_000)), retry());
    ends_at_the_deadline!(deadline(), ThrottleLayer::new(), retry());
    ends_at_the_deadline!(deadline(), RateLimitLayer::per_second(100), CircuitBreakerLayer::new());
    ends_at_the_deadline!(deadline(), ConcurrencyLimitLayer::fixed(1).wait(8, ms(5_000)));
    ends_at_the_deadline!(deadline(), limit::ConcurrencyLimitLayer::new(1));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_brings_an_earlier_deadline_waits_for_an_endpoint_no_longer_than_that() {
    let client = over_a_balancer!(ms(503), DeadlineLayer::new(ms(2_000)).carry(CarryTimed));
    let start = Instant::now();
    let request = Timed { known: None, given: Some(ms(80)) };
    let error = client.oneshot(request).await.unwrap_err();
    assert_eq!(cause::<DeadlineExceeded>(error.as_ref()).unwrap().after, ms(80));
    assert_eq!(start.elapsed(), ms(80));
}

#[tokio::test(start_paused = true)]
async fn time_that_passed_before_a_call_does_not_count_against_its_deadline() {
    let mut client = over_a_balancer!(ms(900), DeadlineLayer::new(ms(500)).carry(CarryTimed));
    client.ready().await.unwrap();
    sleep(ms(600)).await;
    // Its own 500 ms begin with the call.
    assert!(client.ready().await.unwrap().call(Timed::default()).await.is_ok());
}

/// Fails after `failed_after`, which is not later than the timer of a deadline at 100 ms.
async fn failing_after(failed_after: Duration) -> BoxError {
    let failing = service_fn(move |_: ()| async move {
        sleep(failed_after).await;
        Err::<(), BoxError>("reset".into())
    });
    DeadlineLayer::new(ms(100)).layer(failing).oneshot(()).await.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn an_error_that_comes_with_the_deadline_does_not_hide_it() {
    assert_eq!(failing_after(ms(99)).await.to_string(), "reset");
    let error = failing_after(ms(100)).await;
    assert_eq!(cause::<DeadlineExceeded>(error.as_ref()).unwrap().after, ms(100));

    // It is polled again only when both are over.
    let failing = service_fn(|_: ()| async {
        sleep(ms(50)).await;
        Err::<(), BoxError>("reset".into())
    });
    let mut late = tokio_test::task::spawn(DeadlineLayer::new(ms(100)).layer(failing).oneshot(()));
    assert!(late.poll().is_pending());
    sleep(ms(300)).await;
    let error = late.await.unwrap_err();
    assert!(cause::<DeadlineExceeded>(error.as_ref()).is_some(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_comes_with_the_deadline_does_not_hide_it() {
    let client = ServiceBuilder::new()
        .layer(DeadlineLayer::new(ms(100)))
        .layer(BalanceLayer::p2c(Vec::<Endpoint>::new()).max_wait(ms(100)))
        .service(|_: &Arc<Node>| service_fn(|_: ()| async { Ok::<_, BoxError>(()) }));
    let error = client.oneshot(()).await.unwrap_err();
    assert!(cause::<DeadlineExceeded>(error.as_ref()).is_some(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_response_that_comes_with_the_deadline_is_given() {
    let slow = service_fn(|_: ()| async {
        sleep(ms(100)).await;
        Ok::<_, BoxError>("in time")
    });
    assert_eq!(DeadlineLayer::new(ms(100)).layer(slow).oneshot(()).await.unwrap(), "in time");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_too_late_keeps_nothing_that_was_reserved_for_it() {
    let echo = service_fn(|request: Timed| async move { Ok::<_, BoxError>(request) });
    let limited = limit::ConcurrencyLimitLayer::new(1).layer(echo);
    let mut client = DeadlineLayer::new(ms(500)).carry(CarryTimed).layer(limited.clone());
    let known = client.ready().await.unwrap().call(Timed::default()).await.unwrap().known;
    sleep(ms(500)).await;
    let late = client.ready().await.unwrap().call(Timed { known, given: None }).await;
    assert!(late.is_err());
    let mut other = limited;
    assert!(other.ready().now_or_never().is_some(), "the place is taken");
    drop(client);
}

#[test]
fn a_call_that_is_in_time_allocates_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let slow = service_fn(|_: ()| async {
        tokio::task::yield_now().await;
        Ok::<_, BoxError>(())
    });
    let mut client = DeadlineLayer::new(ms(500)).layer(slow);
    let mut cx = Context::from_waker(Waker::noop());
    let mut call = || {
        let mut call = pin!(client.call(()));
        while std::future::Future::poll(call.as_mut(), &mut cx).is_pending() {}
    };
    call();
    let allocations = allocation_counter::measure(|| (0..100).for_each(|_| call()));
    assert_eq!(allocations.count_total, 0);
}
