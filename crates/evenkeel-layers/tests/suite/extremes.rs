//! The smallest and greatest value of each setting: a call is answered or refused, and nothing
//! panics.

use std::{sync::Arc, time::Duration};

use evenkeel_core::{
    BoxError,
    backoff::Backoff,
    error::{AttemptTimeout, DeadlineExceeded, cause, is_refusal},
    health::{
        Window,
        breaker::BreakerRules,
        check::CheckRules,
        outlier::{FailurePercentage, OutlierRules, SlowerThanOthers, SuccessRate},
    },
    limit::{Aimd, Gradient2, Vegas},
    node::Node,
    quota::Rate,
    retry::{AnyRules, Budget},
};
use evenkeel_layers::{
    active_health::ActiveHealthLayer,
    admission::{LoadShedLayer, ThrottleLayer},
    balance::BalanceLayer,
    breaker::CircuitBreakerLayer,
    concurrency::ConcurrencyLimitLayer,
    deadline::DeadlineLayer,
    fail_fast::FailFastLayer,
    hedge::HedgeLayer,
    outlier::OutlierLayer,
    rate_limit::RateLimitLayer,
    retry::RetryLayer,
};
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};
use tower::{Layer, Service, ServiceExt, service_fn};

const MOMENT: Duration = Duration::from_nanos(1);
const AGES: Duration = Duration::MAX;

type Answer = Result<u32, BoxError>;

/// Answers after a delay, or fails at once, alternately.
async fn answer(number: u32) -> Answer {
    if number % 3 == 2 {
        return Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into());
    }
    sleep(Duration::from_millis(u64::from(number % 3) * 5)).await;
    Ok(number)
}

/// Makes some calls in sequence, some together, and some after a silence.
async fn calls<S>(name: &str, silence: Duration, service: S)
where
    S: Service<u32, Response = u32, Error = BoxError> + Clone,
{
    let call = |number| {
        let call = timeout(Duration::from_secs(60), service.clone().oneshot(number));
        async move {
            match call.await {
                Ok(Ok(answered)) => assert_eq!(answered, number, "{name}"),
                Ok(Err(error)) => {
                    let is_expected = is_refusal(error.as_ref()) || number % 3 == 2;
                    let is_timeout = cause::<DeadlineExceeded>(error.as_ref()).is_some()
                        || cause::<AttemptTimeout>(error.as_ref()).is_some();
                    assert!(is_expected || is_timeout, "{name}: {error}");
                }
                // It waits for ever, as configured.
                Err(_) => {}
            }
        }
    };
    for number in 0..6 {
        call(number).await;
    }
    join_all((0..12).map(call)).await;
    sleep(silence).await;
    join_all((0..12).map(call)).await;
}

macro_rules! alone {
    ($($layer:expr),* $(,)?) => {
        $({
            // Longer than any period of periodic work.
            let silence = Duration::from_secs(86_400 * 400);
            calls(stringify!($layer), silence, $layer.layer(service_fn(answer))).await;
        })*
    };
}

#[tokio::test(start_paused = true)]
async fn retries_and_hedges_accept_extreme_values() {
    let retry = || RetryLayer::new(Budget::default()).rules(AnyRules::idempotent());
    let budgets = [
        Budget::share(0.0).floor_per_second(0),
        Budget::share(0.1).window(Duration::from_secs(60)),
        Budget::share(1_000.0).floor_per_second(1_000_000).window(Duration::from_secs(1)),
        Budget::throttle(1, 0.001),
        Budget::throttle(1_000, 1_000.0),
    ];
    for budget in budgets {
        alone!(
            retry().budget(budget.clone()),
            HedgeLayer::after(Duration::ZERO, budget.clone()).rules(AnyRules::idempotent()),
            HedgeLayer::percentile(1.0, budget.clone())
                .min_delay(Duration::ZERO)
                .rules(AnyRules::idempotent()),
            HedgeLayer::percentile(99.9, budget).min_delay(AGES).rules(AnyRules::idempotent()),
        );
    }
    alone!(
        retry().max_attempts(1),
        retry().max_attempts(u32::MAX),
        retry().attempt_timeout(MOMENT),
        retry().attempt_timeout(AGES),
        retry().max_delay(Duration::ZERO),
        retry().max_delay(AGES),
        retry().backoff(Backoff::full_jitter(MOMENT, MOMENT)),
        retry().backoff(Backoff::full_jitter(MOMENT, AGES)),
        HedgeLayer::after(AGES, Budget::default()).rules(AnyRules::idempotent()),
    );
}

#[tokio::test(start_paused = true)]
async fn breakers_accept_extreme_values() {
    let rules = || BreakerRules::default();
    let mut least = rules();
    least.consecutive_failures = Some(1);
    least.failure_rate = Some(f64::MIN_POSITIVE);
    least.slow_calls = Some((MOMENT, f64::MIN_POSITIVE));
    (least.window, least.min_calls, least.trial_calls) = (Window::Calls(1), 1, 1);
    (least.min_open, least.max_open, least.jitter) = (MOMENT, MOMENT, 1.0);
    let mut greatest = rules();
    greatest.consecutive_failures = Some(u32::MAX);
    greatest.failure_rate = Some(1.0);
    greatest.slow_calls = Some((AGES, 1.0));
    greatest.window = Window::Calls(Window::MAX_CALLS);
    (greatest.min_calls, greatest.trial_calls) = (u32::MAX, u32::MAX);
    (greatest.min_open, greatest.max_open, greatest.jitter) = (AGES, AGES, 0.0);
    greatest.open_factor = f64::MAX;
    let mut opening = greatest.clone();
    (opening.consecutive_failures, opening.window) = (Some(1), Window::Time(AGES));
    let mut never = rules();
    (never.consecutive_failures, never.failure_rate) = (None, None);
    let mut short = least.clone();
    short.window = Window::Time(Duration::from_nanos(10));
    for rules in [least, greatest, opening, never, short] {
        alone!(CircuitBreakerLayer::new().rules(rules));
    }
}

#[tokio::test(start_paused = true)]
async fn limits_accept_extreme_values() {
    alone!(
        ConcurrencyLimitLayer::fixed(1),
        ConcurrencyLimitLayer::fixed(u32::MAX),
        ConcurrencyLimitLayer::fixed(1).wait(0, AGES),
        ConcurrencyLimitLayer::fixed(1).wait(u32::MAX, AGES),
        ConcurrencyLimitLayer::fixed(1).wait(u32::MAX, Duration::ZERO),
        ConcurrencyLimitLayer::adaptive(|| Aimd::new().bounds(1, 1, u32::MAX).timeout(MOMENT)),
        ConcurrencyLimitLayer::adaptive(|| Aimd::new().bounds(u32::MAX, 1, u32::MAX)),
        ConcurrencyLimitLayer::adaptive(|| Vegas::new().bounds(1, 1, u32::MAX).window(MOMENT)),
        ConcurrencyLimitLayer::adaptive(|| Vegas::new().bounds(u32::MAX, 1, u32::MAX).window(AGES)),
        ConcurrencyLimitLayer::adaptive(|| Gradient2::new().tolerance(1.0).window(Duration::ZERO)),
        ConcurrencyLimitLayer::adaptive(|| Gradient2::new().bounds(u32::MAX, u32::MAX, u32::MAX)),
        LoadShedLayer::fixed(1).max_queue(0).target(MOMENT).interval(MOMENT),
        LoadShedLayer::fixed(1).max_queue(u32::MAX).target(AGES).interval(AGES),
        ThrottleLayer::new().ratio(1.0).padding(0).window(Duration::from_nanos(16)),
        ThrottleLayer::new().ratio(100.0).padding(u32::MAX).window(AGES),
        DeadlineLayer::new(Duration::ZERO),
        DeadlineLayer::new(AGES),
        FailFastLayer::new(Duration::ZERO),
        FailFastLayer::new(AGES),
    );
}

#[tokio::test(start_paused = true)]
async fn rates_accept_extreme_values() {
    let year = Duration::from_secs(31_536_000);
    for rate in [
        Rate::new(1, MOMENT),
        Rate::new(1, MOMENT).burst(u32::MAX),
        Rate::new(1, year),
        Rate::new(1, year).burst(100),
        Rate::new(u32::MAX, year),
        Rate::new(1_000_000_000, Duration::from_secs(1)),
    ] {
        let key = |number: &u32| Some(number.to_be_bytes());
        alone!(
            RateLimitLayer::new(rate),
            RateLimitLayer::new(rate).wait(MOMENT).jitter(Duration::ZERO),
            RateLimitLayer::new(rate).wait(AGES).jitter(AGES),
            RateLimitLayer::new(rate).keyed(key, 1).wait(AGES),
        );
    }
}

#[tokio::test(start_paused = true)]
async fn layers_below_a_balancer_accept_extreme_values() {
    let connect = |_: &Arc<Node>| service_fn(answer);
    // There may be a sweep each millisecond.
    let silence = Duration::from_secs(2);
    let endpoints = || {
        let names = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];
        names.map(|name| name.parse::<evenkeel_core::endpoint::Endpoint>().unwrap()).to_vec()
    };
    let mut least = OutlierRules::default();
    (least.consecutive_errors, least.consecutive_local_errors) = (Some(1), Some(1));
    least.consecutive_gateway_errors = Some(1);
    least.success_rate = Some(SuccessRate {
        deviations: f64::MIN_POSITIVE,
        min_difference: 0.0,
        min_nodes: 0,
        min_calls: 0,
    });
    least.failure_percentage = Some(FailurePercentage { percent: 1, min_nodes: 0, min_calls: 0 });
    least.latency = Some(SlowerThanOthers {
        factor: 1.0 + f64::EPSILON,
        min_latency: Duration::ZERO,
        min_nodes: 0,
        min_calls: 0,
    });
    (least.interval, least.min_ejection, least.max_ejection) =
        (Duration::from_millis(1), MOMENT, MOMENT);
    (least.ejection_jitter, least.max_ejected_percent, least.panic_percent) = (MOMENT, 100, 0);
    (least.probation_calls, least.max_remembered) = (0, 0);
    let mut greatest = OutlierRules::default();
    (greatest.consecutive_errors, greatest.consecutive_local_errors) = (Some(1), Some(u32::MAX));
    (greatest.interval, greatest.min_ejection, greatest.max_ejection) = (AGES, AGES, AGES);
    (greatest.ejection_jitter, greatest.max_ejected_percent, greatest.panic_percent) =
        (AGES, 100, 100);
    (greatest.probation_calls, greatest.max_remembered) = (u32::MAX, usize::MAX);
    for rules in [least, greatest] {
        let connect = OutlierLayer::new().rules(rules).layer(connect);
        calls("outlier", silence, BalanceLayer::p2c(endpoints()).layer(connect)).await;
    }

    let probe = |_: Arc<Node>| async { Err::<(), _>("never well") };
    let mut greatest = CheckRules::default();
    (greatest.interval, greatest.interval_edge, greatest.timeout) = (AGES, AGES, AGES);
    (greatest.interval_down, greatest.interval_idle) = (Some(AGES), Some(AGES));
    (greatest.jitter_percent, greatest.fall, greatest.rise) = (100, u32::MAX, u32::MAX);
    (greatest.probes_per_second, greatest.remembered_for) = (1_000_000, AGES);
    let mut plain = greatest.clone();
    (plain.jitter_percent, plain.max_remembered, plain.probes_per_second) = (0, 0, 1);
    for rules in [greatest, plain] {
        let connect = ActiveHealthLayer::new(probe).rules(rules).layer(connect);
        calls("checks", silence, BalanceLayer::p2c(endpoints()).layer(connect)).await;
    }

    let rate = RateLimitLayer::new(Rate::new(1, Duration::from_secs(31_536_000)).burst(1));
    let connect = rate.heed_throttling(AGES).layer(connect);
    let client = BalanceLayer::p2c(endpoints()).max_wait(Duration::from_millis(10));
    calls("rate", silence, client.layer(connect)).await;
}
