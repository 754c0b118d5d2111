//! Deadlines, alone and around retries.

// clippy knows test functions, but not the functions that they share; the clock is the paused one.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

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
    deadline::{CarryDeadline, Deadline},
    error::{DeadlineExceeded, cause},
    retry::{AnyRules, Budget},
};
use evenkeel_layers::{deadline::DeadlineLayer, retry::RetryLayer};
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A request that carries its deadline, and the time that its sender gave it.
#[derive(Clone, Copy, Debug, Default)]
struct Timed {
    known: Option<Deadline>,
    given: Option<Duration>,
}

#[derive(Clone, Copy)]
struct CarryTimed;

impl CarryDeadline<Timed> for CarryTimed {
    fn deadline(&self, request: &Timed) -> Option<Deadline> {
        request.known
    }
    fn given(&self, request: &Timed) -> Option<Duration> {
        request.given
    }
    fn carry(&self, request: &mut Timed, deadline: Deadline, remaining: Duration) {
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
                .attempts_max(10),
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
async fn what_is_too_late_is_not_begun() {
    let echo = service_fn(|request: Timed| async move { Ok::<_, BoxError>(request.known) });
    let mut client = DeadlineLayer::new(ms(500)).carry(CarryTimed).layer(echo);
    let known = client.ready().await.unwrap().call(Timed::default()).await.unwrap();
    sleep(ms(500)).await;
    let late = client.call(Timed { known, given: None }).await.unwrap_err();
    assert!(cause::<DeadlineExceeded>(late.as_ref()).is_some());
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
