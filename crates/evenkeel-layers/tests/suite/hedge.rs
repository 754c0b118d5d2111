//! What a caller of the hedge layer sees, and what the service below it.

use std::{
    collections::VecDeque,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    error::RequestThrottled,
    retry::{AnyRules, Budget},
    time::Timestamp,
};
use evenkeel_layers::{
    hedge::{Hedge, HedgeLayer},
    retry::RetryLayer,
};
use tokio::time::{Instant, sleep};
use tokio_test::task::spawn;
use tower::{Layer, Service, ServiceExt};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// After how many milliseconds an attempt ends, and whether it succeeds.
type Answer = (u64, bool);

const NEVER: Answer = (u64::MAX >> 20, true);

#[derive(Clone)]
struct Probe {
    script: Arc<Script>,
    is_ready: bool,
}

#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Answer>>,
    unready: AtomicUsize,
    attempts: AtomicUsize,
    under_way: AtomicUsize,
}

struct UnderWay(Arc<Script>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

impl Service<()> for Probe {
    type Response = usize;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<usize, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // The second time that it is asked, it has failed.
        if self.script.attempts.load(Relaxed) == 1 && 0 < self.script.unready.load(Relaxed) {
            return Poll::Ready(Err("not ready".into()));
        }
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        assert!(std::mem::take(&mut self.is_ready), "called without being ready");
        let attempt = self.script.attempts.fetch_add(1, Relaxed) + 1;
        let (millis, is_good) =
            self.script.answers.lock().unwrap().pop_front().unwrap_or((1, true));
        self.script.under_way.fetch_add(1, Relaxed);
        let under_way = UnderWay(self.script.clone());
        Box::pin(async move {
            let _under_way = under_way;
            sleep(ms(millis)).await;
            if is_good { Ok(attempt) } else { Err(format!("attempt {attempt}").into()) }
        })
    }
}

fn script(answers: impl IntoIterator<Item = Answer>) -> Arc<Script> {
    Arc::new(Script { answers: Mutex::new(answers.into_iter().collect()), ..Script::default() })
}

fn hedge(script: &Arc<Script>, layer: HedgeLayer) -> Hedge<Probe, AnyRules> {
    let probe = Probe { script: script.clone(), is_ready: false };
    layer.rules(AnyRules::idempotent()).layer(probe)
}

fn after(millis: u64) -> HedgeLayer {
    HedgeLayer::after(ms(millis), Budget::default())
}

#[tokio::test(start_paused = true)]
async fn the_first_good_answer_wins_and_the_loser_is_dropped() {
    let script = script([NEVER, (5, true)]);
    let client = hedge(&script, after(20));
    let start = Instant::now();
    assert_eq!(client.clone().oneshot(()).await.unwrap(), 2);
    assert_eq!(start.elapsed(), ms(25));
    assert_eq!(script.under_way.load(Relaxed), 0);
    let counts = client.counts();
    assert_eq!((counts.sent, counts.won, counts.cancelled), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_error_never_beats_a_pending_success() {
    for answers in [[(100, true), (5, false)], [(30, false), (50, true)]] {
        let script = script(answers);
        let client = hedge(&script, after(20));
        assert!(client.clone().oneshot(()).await.is_ok());
        assert_eq!(client.counts().cancelled, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_later_error_is_what_the_caller_gets_if_both_fail() {
    let client = hedge(&script([(100, false), (5, false)]), after(20));
    assert_eq!(client.oneshot(()).await.unwrap_err().to_string(), "attempt 1");
    let client = hedge(&script([(30, false), (50, false)]), after(20));
    assert_eq!(client.oneshot(()).await.unwrap_err().to_string(), "attempt 2");
}

#[tokio::test(start_paused = true)]
async fn a_failure_before_its_time_is_not_hedged() {
    let script = script([(5, false)]);
    assert!(hedge(&script, after(20)).oneshot(()).await.is_err());
    assert_eq!(script.attempts.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_cannot_be_sent_leaves_the_first_attempt_alone() {
    for (answer, is_good) in [((100, true), true), ((100, false), false)] {
        let script = script([answer]);
        script.unready.store(1, Relaxed);
        assert_eq!(hedge(&script, after(20)).oneshot(()).await.is_ok(), is_good);
        assert_eq!(script.attempts.load(Relaxed), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_must_not_be_sent_twice_is_not_hedged() {
    let script = script([(100, true)]);
    let probe = Probe { script: script.clone(), is_ready: false };
    assert!(after(20).rules(AnyRules::new()).layer(probe).oneshot(()).await.is_ok());
    assert_eq!(script.attempts.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_service_gets_no_more_than_the_budget() {
    let script = script([(50, true); 400]);
    let budget = Budget::share(10.0).floor_per_second(0);
    let client = hedge(&script, HedgeLayer::after(ms(20), budget));
    let calls = (0..100).map(|_| client.clone().oneshot(()));
    futures_util::future::join_all(calls).await;
    assert_eq!(script.attempts.load(Relaxed), 110);
}

/// Hedges at the 90th percentile, with one attempt in `nth` slow.
async fn hedged_with_one_slow_in(nth: usize) -> Hedge<Probe, AnyRules> {
    let script = script((0..4_000).map(|n| if n % nth == 0 { (3_000, true) } else { (10, true) }));
    let client = hedge(&script, HedgeLayer::percentile(90.0, Budget::share(1_000.0)));
    for _ in 0..1_000 {
        client.clone().oneshot(()).await.unwrap();
    }
    client
}

#[tokio::test(start_paused = true)]
async fn a_percentile_hedges_its_share() {
    let client = hedged_with_one_slow_in(15).await;
    let delay = client.delay().unwrap();
    assert!((10..=12).contains(&delay.as_millis()), "{delay:?}");
    let hedged = client.counts().sent;
    assert!((50..=75).contains(&hedged), "{hedged} hedges to 1,000 calls");
}

#[tokio::test(start_paused = true)]
async fn cancelled_losers_do_not_make_the_delay_shorter() {
    // More than a tenth is slow. If losers did not count, the service would look as if none were.
    let delay = hedged_with_one_slow_in(7).await.delay().unwrap();
    assert!(ms(50) < delay, "{delay:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_leaves_nothing_behind_wherever_it_waits() {
    for wait in [0, 25] {
        let script = script([NEVER, NEVER]);
        let mut call = spawn(hedge(&script, after(20)).oneshot(()));
        assert!(call.poll().is_pending());
        sleep(ms(wait)).await;
        assert!(call.poll().is_pending());
        assert_eq!(script.under_way.load(Relaxed), if wait == 0 { 1 } else { 2 });
        drop(call);
        assert_eq!(script.under_way.load(Relaxed), 0);
        assert_eq!(Arc::strong_count(&script), 1);
    }
}

#[test]
fn a_call_that_is_not_hedged_allocates_nothing() {
    #[derive(Clone)]
    struct Echo;

    struct Yield(bool);

    impl Future for Yield {
        type Output = Result<(), BoxError>;
        fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
            if std::mem::take(&mut self.0) { Poll::Pending } else { Poll::Ready(Ok(())) }
        }
    }

    impl Service<()> for Echo {
        type Response = ();
        type Error = BoxError;
        type Future = Yield;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, (): ()) -> Yield {
            Yield(true)
        }
    }

    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let mut client = after(1_000).rules(AnyRules::idempotent()).layer(Echo);
    let mut cx = Context::from_waker(Waker::noop());
    let mut call = || {
        let mut call = pin!(client.call(()));
        while call.as_mut().poll(&mut cx).is_pending() {}
    };
    call();
    let allocations = allocation_counter::measure(|| (0..100).for_each(|_| call()));
    assert_eq!(allocations.count_total, 0);
}

#[tokio::test(start_paused = true)]
async fn a_throttle_hears_of_each_attempt_and_ends_the_hedges_of_a_service_that_fails() {
    let budget = Budget::throttle(4, 1.0);
    let script = script([(100, false), (30, false), (100, true), (100, true), (1, true)]);
    let client = hedge(&script, HedgeLayer::after(ms(20), budget));

    client.clone().oneshot(()).await.unwrap_err();
    assert_eq!(script.attempts.load(Relaxed), 2, "two of four tokens are gone");
    client.clone().oneshot(()).await.unwrap();
    assert_eq!(script.attempts.load(Relaxed), 3, "no hedge with half of them");
    client.clone().oneshot(()).await.unwrap();
    assert_eq!(script.attempts.load(Relaxed), 5, "the success has given one back");
}

#[tokio::test(start_paused = true)]
async fn below_a_retry_a_throttle_hears_of_each_attempt_once() {
    for (answers, is_good, left) in
        [([(100, false), (30, false)], false, 1), ([(100, true), (30, false)], true, 3)]
    {
        let budget = Budget::throttle(6, 1.0);
        let script = script(answers);
        let hedge = hedge(&script, HedgeLayer::after(ms(20), budget.clone()).below_retry());
        let retry =
            RetryLayer::new(budget.clone()).rules(AnyRules::new()).max_attempts(1).layer(hedge);
        assert_eq!(retry.oneshot(()).await.is_ok(), is_good);
        // Of six, three may be missing: two failures, or one that a success made up for.
        assert_eq!(budget.balance(Timestamp::default()), left);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_a_layer_below_does_not_hide_the_real_error() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let service = tower::service_fn({
        let attempts = attempts.clone();
        move |()| {
            let is_first = attempts.fetch_add(1, Relaxed) == 0;
            async move {
                sleep(ms(30)).await;
                let error: BoxError =
                    if is_first { "down".into() } else { RequestThrottled::new(0.5).into() };
                Err::<(), _>(error)
            }
        }
    });
    let client = after(20).rules(AnyRules::idempotent()).layer(service);

    let error = client.oneshot(()).await.unwrap_err();

    assert_eq!(attempts.load(Relaxed), 2);
    assert_eq!(error.to_string(), "down");
}
