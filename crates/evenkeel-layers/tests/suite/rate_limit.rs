//! A rate limit that stands alone around a service.

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    task::{Context, Poll},
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    error::{RateLimited, cause},
    quota::{Bucket, Disclose, QuotaState, Rate},
    retry::{Reach, Verdict, judge_error},
    rng::Rng,
    time::Timestamp,
};
use evenkeel_layers::rate_limit::{RateLimitLayer, RateLimiter};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, advance};
use tower::{Layer, Service, ServiceExt, limit::ConcurrencyLimitLayer, service_fn};

#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}

fn echo()
-> impl Service<&'static str, Response = String, Error = BoxError, Future: Send> + Clone + Send {
    service_fn(|name: &'static str| async move { Ok::<_, BoxError>(name.to_owned()) })
}

fn limited(result: Result<String, BoxError>) -> RateLimited {
    *cause::<RateLimited>(result.expect_err("refused").as_ref()).expect("by the limit")
}

/// How many requests are let through at once.
fn passes(
    service: &(impl Service<&'static str, Response = String> + Clone),
    name: &'static str,
) -> usize {
    let calls = (0..100).filter_map(|_| service.clone().oneshot(name).now_or_never());
    calls.filter(Result::is_ok).count()
}

#[tokio::test(start_paused = true)]
async fn all_clones_share_one_limit() {
    let layer = RateLimitLayer::per_second(10);
    let (one, other) = (layer.layer(echo()), layer.clone().layer(echo()));

    assert_eq!(passes(&one.clone(), "a") + passes(&one.clone(), "a") + passes(&other, "a"), 10);
    advance(Duration::from_millis(300)).await;
    assert_eq!(passes(&other, "a"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_exactly_when_to_try_again() {
    let service = RateLimitLayer::new(Rate::per_second(10).burst(1)).layer(echo());
    service.clone().oneshot("a").await.unwrap();
    advance(Duration::from_millis(30)).await;

    let refusal = limited(service.clone().oneshot("a").await);

    assert_eq!(refusal.retry_after, Duration::from_millis(70));
    advance(refusal.retry_after - Duration::from_nanos(1)).await;
    assert_eq!(limited(service.clone().oneshot("a").await).retry_after, Duration::from_nanos(1));
    advance(Duration::from_nanos(1)).await;
    service.clone().oneshot("a").await.unwrap();
}

#[tokio::test]
async fn sixteen_threads_get_what_there_is_and_not_one_more() {
    for keyed in [false, true] {
        let rate = Rate::new(1_000, Duration::from_secs(3_600));
        let limiter = if keyed { RateLimiter::keyed(rate, 100) } else { RateLimiter::new(rate) };
        let passed = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        passed.fetch_add(usize::from(limiter.check().is_ok()), SeqCst);
                    }
                });
            }
        });
        assert_eq!(passed.load(SeqCst), 1_000, "keyed: {keyed}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_key_has_its_own_quota_and_a_request_without_one_is_not_limited() {
    let layer = RateLimitLayer::per_second(10)
        .burst(3)
        .keyed(|name: &&'static str| (*name != "free").then_some(*name), 1_000);
    let service = layer.layer(echo());

    assert_eq!(passes(&service, "a"), 3);
    assert_eq!(passes(&service, "b"), 3);
    assert_eq!(passes(&service, "free"), 100);
}

#[tokio::test(start_paused = true)]
async fn many_keys_take_no_more_memory_and_idle_ones_make_room() {
    let limit = RateLimitLayer::per_second(1).burst(3);
    let layer = limit.keyed(|key: &u32| Some(key.to_be_bytes()), 64);
    let service = layer.layer(service_fn(|_: u32| async { Ok::<_, BoxError>(()) }));
    let call = |key| service.clone().oneshot(key).now_or_never().expect("at once").is_ok();

    // Far more keys than there is room for: a key that has spent nothing is not refused.
    assert!((0..10_000).all(call));
    // The key that has spent the most is remembered the longest.
    assert_eq!((0..9).filter(|_| call(77_777)).count(), 3);
    assert!((20_000..21_000).all(call));
    assert!(!call(77_777));
}

#[tokio::test(start_paused = true)]
async fn waiting_calls_go_at_the_rate_and_no_faster() {
    let layer =
        RateLimitLayer::new(Rate::per_second(10).burst(1)).wait(Duration::from_secs(60)).seed(3);
    let service = layer.layer(echo());
    let begun = now();

    let mut calls: FuturesUnordered<_> = (0..20)
        .map(|_| {
            let call = service.clone().oneshot("a");
            async move { call.await.map(|_| begun.elapsed()) }
        })
        .collect();
    let mut times = Vec::new();
    while let Some(time) = calls.next().await {
        times.push(time.unwrap());
    }

    for pair in times.windows(2) {
        let apart = pair[1] - pair[0];
        // Tokio's timers round to a millisecond.
        assert!(Duration::from_millis(99) <= apart, "{times:?}");
    }
    let took = *times.last().unwrap();
    assert!((1_900..4_000).contains(&took.as_millis()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn no_call_waits_longer_than_the_bound() {
    let layer =
        RateLimitLayer::new(Rate::per_second(1).burst(1)).wait(Duration::from_millis(2_500));
    let service = layer.layer(echo());
    let begun = now();

    let calls: FuturesUnordered<_> = (0..10).map(|_| service.clone().oneshot("a")).collect();
    let results: Vec<_> = calls.collect().await;

    assert!(begun.elapsed() <= Duration::from_millis(2_501), "{:?}", begun.elapsed());
    let passed = results.iter().filter(|result| result.is_ok()).count();
    assert!((2..=3).contains(&passed), "{passed}");
    let long = RateLimitLayer::new(Rate::new(1, Duration::from_secs(60)).burst(1))
        .wait(Duration::from_secs(59))
        .layer(echo());
    long.clone().oneshot("a").await.unwrap();
    assert!(long.oneshot("a").now_or_never().expect("refused at once").is_err());
}

#[tokio::test(start_paused = true)]
async fn waits_differ_from_each_other_and_repeat_from_a_seed() {
    let wakes = async |seed| {
        let layer = RateLimitLayer::new(Rate::per_second(10).burst(1))
            .wait(Duration::from_secs(9))
            .jitter(Duration::from_secs(1))
            .seed(seed);
        let service = layer.layer(echo());
        let begun = now();
        let mut wakes = Vec::new();
        for _ in 0..5 {
            service.clone().oneshot("a").await.unwrap();
            wakes.push(begun.elapsed().as_millis());
        }
        wakes
    };
    let first = wakes(1).await;
    assert_eq!(first, wakes(1).await);
    assert_ne!(first, wakes(2).await);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_cancelled_spends_nothing_and_holds_nothing() {
    let limit = RateLimitLayer::new(Rate::per_second(1).burst(1)).wait(Duration::from_secs(9));
    let permits = ConcurrencyLimitLayer::new(1);
    let mut service = limit.layer(permits.layer(echo()));
    service.ready().await.unwrap().call("a").await.unwrap();

    let mut waiting = tokio_test::task::spawn(service.ready().await.unwrap().call("a"));
    assert!(waiting.poll().is_pending());

    // The permit of the service that was made ready for it is free for others meanwhile.
    let mut other = service.clone();
    assert!(other.ready().now_or_never().expect("there is a permit").is_ok());
    drop((waiting, other));
    advance(Duration::from_secs(1)).await;
    service.ready().await.unwrap().call("a").now_or_never().expect("its turn").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_keeps_no_permit_of_its_service() {
    let limit = RateLimitLayer::new(Rate::per_second(1).burst(1));
    let mut service = limit.layer(ConcurrencyLimitLayer::new(1).layer(echo()));
    service.ready().await.unwrap().call("a").await.unwrap();

    limited(service.ready().await.unwrap().call("a").await);

    assert!(service.clone().ready().now_or_never().expect("there is a permit").is_ok());
}

#[tokio::test(start_paused = true)]
async fn only_a_service_that_was_polled_ready_is_called() {
    struct Strict(bool);
    impl Clone for Strict {
        fn clone(&self) -> Self {
            Self(false)
        }
    }
    impl Service<u32> for Strict {
        type Response = u32;
        type Error = BoxError;
        type Future = std::future::Ready<Result<u32, BoxError>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            self.0 = true;
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, n: u32) -> Self::Future {
            assert!(std::mem::take(&mut self.0), "not polled ready");
            std::future::ready(Ok(n))
        }
    }
    let limit = RateLimitLayer::new(Rate::per_second(10).burst(1)).wait(Duration::from_millis(150));
    let mut service = limit.layer(Strict(false));
    for n in 0..10 {
        _ = service.ready().await.unwrap().call(n).await;
        _ = tokio::join!(service.clone().oneshot(n), service.clone().oneshot(n));
    }
}

#[tokio::test(start_paused = true)]
async fn the_quota_that_a_server_announces_is_respected() {
    let layer = RateLimitLayer::per_second(1_000);
    let (limiter, service) = (layer.limiter(), layer.layer(echo()));

    limiter.heed(0, Duration::from_secs(3));
    assert_eq!(limited(service.clone().oneshot("a").await).retry_after, Duration::from_secs(3));
    advance(Duration::from_secs(3)).await;
    assert_eq!(passes(&service, "a"), 100);
    limiter.heed(4, Duration::from_secs(2));
    assert_eq!(passes(&service, "a"), 1);
    advance(Duration::from_millis(500)).await;
    assert_eq!(passes(&service, "a"), 1);
}

#[tokio::test(start_paused = true)]
async fn the_remaining_quota_is_disclosed_in_the_response() {
    #[derive(Clone)]
    struct Append;
    impl Disclose<String> for Append {
        fn disclose(&self, state: &QuotaState, response: &mut String) {
            *response += &format!(" {} {:?}", state.remaining, state.reset);
        }
    }
    let layer = RateLimitLayer::per_second(10).burst(3).disclose(Append);
    let service = layer.layer(echo());

    assert_eq!(service.clone().oneshot("a").await.unwrap(), "a 2 100ms");
    assert_eq!(service.clone().oneshot("a").await.unwrap(), "a 1 200ms");
}

#[test]
fn a_refusal_may_be_tried_again_after_its_time() {
    let limited = RateLimited::new(Duration::from_secs(2), Rate::per_second(1));
    let verdict = judge_error(&limited);
    let after = Some(limited.retry_after);
    assert_eq!(verdict, Verdict::Again { reach: Reach::Unprocessed, after });
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_ever_with_any_jitter_does_not_overflow() {
    let limit = RateLimitLayer::new(Rate::per_second(10).burst(1)).wait(Duration::MAX);
    let (service, late) = (limit.layer(echo()), limit.jitter(Duration::MAX).layer(echo()));
    service.clone().oneshot("a").await.unwrap();

    assert!(late.oneshot("a").now_or_never().is_none());

    let begin = now();
    service.oneshot("a").await.unwrap();
    assert!(begin.elapsed() <= Duration::from_millis(201));
}

#[tokio::test(start_paused = true)]
async fn each_key_gets_what_a_bucket_of_its_own_would_give() {
    let mut rng = Rng::with_seed(8);
    for rate in [
        Rate::per_second(10).burst(3),
        Rate::per_minute(7),
        Rate::new(3, Duration::from_millis(10)).burst(1),
    ] {
        let layer = RateLimitLayer::new(rate).keyed(|key: &&'static str| Some(*key), 1_000);
        let service = layer.layer(echo());
        let keys = ["a", "b", "c", "d", "e"];
        let (mut buckets, mut passed) = ([Bucket::default(); 5], 0);
        let start = now();
        for _ in 0..3_000 {
            advance(rate.interval().mul_f64(rng.unit() / 4.0)).await;
            // Some keys are used more often than others.
            let key = rng.below(5).min(rng.below(5));
            let at = Timestamp::from_nanos(1 << 62) + start.elapsed();
            let grant = buckets[key].take(&rate, at, 1);

            let result = service.clone().oneshot(keys[key]).await;

            if grant.tokens == 0 {
                assert_eq!(limited(result).retry_after, grant.retry_after);
            } else {
                assert_eq!(result.unwrap(), keys[key]);
                passed += 1;
            }
        }
        assert!((500..2_900).contains(&passed), "{passed}");
    }
}
