//! What a caller of the retry layer sees, and what the service below it.

use std::{
    collections::VecDeque,
    future::{Future, Ready, ready},
    io::{self, ErrorKind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    backoff::Backoff,
    error::{AttemptTimeout, LimitReached, RequestThrottled, cause},
    retry::{AnyRules, Budget, Next, Reach, Replay, Ruled, Rules, Verdict},
    time::Timestamp,
};
use evenkeel_layers::retry::{Retry, RetryLayer};
use tokio::time::{Instant, sleep};
use tokio_test::task::spawn;
use tower::{Layer, Service, ServiceExt};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The result of an attempt.
#[derive(Clone, Copy)]
enum Answer {
    Good,
    Fails(ErrorKind),
    Never,
    After(Duration),
}

use Answer::{After, Fails, Good, Never};
const RESET: Answer = Fails(ErrorKind::ConnectionReset);
const REFUSED: Answer = Fails(ErrorKind::ConnectionRefused);

/// What the clones of a probe share.
#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Answer>>,
    readiness: Mutex<VecDeque<Readiness>>,
    seen: Mutex<Vec<Instant>>,
    under_way: AtomicUsize,
}

#[derive(Clone, Copy)]
enum Readiness {
    Ready,
    Pending,
    Fails,
}

impl Script {
    fn new(answers: impl IntoIterator<Item = Answer>) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new(answers.into_iter().collect()), ..Self::default() })
    }

    fn is(&self, readiness: impl IntoIterator<Item = Readiness>) {
        self.readiness.lock().unwrap().extend(readiness);
    }

    fn attempts(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn under_way(&self) -> usize {
        self.under_way.load(Relaxed)
    }

    fn probe(self: &Arc<Self>) -> Probe {
        Probe { script: self.clone(), is_ready: false }
    }

    fn retry(self: &Arc<Self>, layer: &RetryLayer) -> Retry<Probe, AnyRules> {
        layer.clone().rules(AnyRules::idempotent()).layer(self.probe())
    }
}

/// A service that notices when it is called without having been made ready.
struct Probe {
    script: Arc<Script>,
    is_ready: bool,
}

impl Clone for Probe {
    fn clone(&self) -> Self {
        self.script.probe()
    }
}

struct UnderWay(Arc<Script>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

impl Service<u32> for Probe {
    type Response = u32;
    /// Not `Clone`, like most errors.
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<u32>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let readiness = self.script.readiness.lock().unwrap().pop_front();
        match readiness.unwrap_or(Readiness::Ready) {
            Readiness::Ready => {
                self.is_ready = true;
                Poll::Ready(Ok(()))
            }
            Readiness::Pending => Poll::Pending,
            Readiness::Fails => Poll::Ready(Err(io::Error::other("not ready"))),
        }
    }

    fn call(&mut self, request: u32) -> Self::Future {
        assert!(std::mem::take(&mut self.is_ready), "called without being ready");
        self.script.seen.lock().unwrap().push(Instant::now());
        let attempt = self.script.attempts();
        let answer = self.script.answers.lock().unwrap().pop_front().unwrap_or(Good);
        self.script.under_way.fetch_add(1, Relaxed);
        let under_way = UnderWay(self.script.clone());
        Box::pin(async move {
            let _under_way = under_way;
            match answer {
                Good => Ok(request),
                Fails(kind) => Err(io::Error::new(kind, format!("attempt {attempt}"))),
                Never => std::future::pending().await,
                After(delay) => {
                    sleep(delay).await;
                    Ok(request)
                }
            }
        })
    }
}

fn layer() -> RetryLayer {
    RetryLayer::new(Budget::default()).seed(7)
}

fn now() -> Timestamp {
    // Later than every time that the layers were told.
    Timestamp::from_nanos(u64::MAX / 2 + u64::MAX / 4)
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_is_made_good_by_another() {
    let script = Script::new([RESET, REFUSED]);
    assert_eq!(script.retry(&layer()).oneshot(3).await.unwrap(), 3);
    assert_eq!(script.attempts(), 3);
    assert_eq!(script.under_way(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_last_real_error_is_what_the_caller_gets() {
    let script = Script::new([RESET; 9]);
    let error = script.retry(&layer()).oneshot(3).await.unwrap_err();
    assert_eq!(cause::<io::Error>(error.as_ref()).unwrap().to_string(), "attempt 3");
}

#[tokio::test(start_paused = true)]
async fn the_error_stays_if_no_other_attempt_can_be_made() {
    let script = Script::new([RESET]);
    script.is([Readiness::Ready, Readiness::Pending, Readiness::Fails]);
    let mut call = spawn(script.retry(&layer()).oneshot(3));
    assert!(call.poll().is_pending());
    tokio::time::sleep(ms(25)).await;
    assert!(call.poll().is_pending());
    let Poll::Ready(Err(error)) = call.poll() else { panic!("not ready, not over") };
    assert_eq!(error.to_string(), "attempt 1");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_may_have_been_processed_is_not_repeated_unasked() {
    for (answer, attempts) in [(RESET, 1), (REFUSED, 4)] {
        let script = Script::new([answer; 9]);
        layer().rules(AnyRules::new()).layer(script.probe()).oneshot(3).await.unwrap_err();
        assert_eq!(script.attempts(), attempts);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_not_sent_is_sent_again_at_once_and_once_for_free() {
    let script = Script::new([REFUSED, REFUSED]);
    let empty = Budget::share(0.0).floor_per_second(0);
    script.retry(&RetryLayer::new(empty)).oneshot(3).await.unwrap_err();
    let seen = script.seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_calls_to_a_dead_service_retry_within_the_budget() {
    let script = Script::new([RESET; 1_000]);
    let budget = Budget::share(20.0).floor_per_second(1);
    let client = script.retry(&RetryLayer::new(budget));
    for call in 0..100 {
        client.clone().oneshot(call).await.unwrap_err();
    }
    // Ten from the floor, twenty from the share, and what the floor adds during back-offs.
    assert!((130..=132).contains(&script.attempts()), "{} attempts", script.attempts());
}

#[tokio::test(start_paused = true)]
async fn calls_that_fail_together_come_back_one_by_one() {
    let script = Script::new([RESET; 20]);
    let client = script.retry(&layer().backoff(Backoff::full_jitter(ms(900), ms(900))));
    let calls = (0..20).map(|call| client.clone().oneshot(call));
    for result in futures_util::future::join_all(calls).await {
        result.unwrap();
    }
    let mut seen = script.seen.lock().unwrap().split_off(20);
    seen.dedup();
    assert!(15 < seen.len(), "{} different instants", seen.len());
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_hangs_is_given_up_and_made_elsewhere() {
    let script = Script::new([Never, After(ms(250))]);
    let start = Instant::now();
    let client = script.retry(&layer().attempt_timeout(ms(300)));
    assert_eq!(client.oneshot(3).await.unwrap(), 3);
    let backoff = start.elapsed() - ms(550);
    assert!(backoff < ms(27), "{backoff:?}");

    let script = Script::new([Never; 9]);
    let client = script.retry(&layer().attempt_timeout(ms(300)));
    let error = client.oneshot(3).await.unwrap_err();
    assert_eq!(cause::<AttemptTimeout>(error.as_ref()).unwrap().after, ms(300));
    assert_eq!(script.under_way(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_leaves_nothing_behind_wherever_it_waits() {
    for (answers, readiness) in [
        (vec![Never], vec![]),
        (vec![RESET], vec![]),
        (vec![REFUSED], vec![Readiness::Ready, Readiness::Pending]),
        (vec![REFUSED, Never], vec![]),
        (vec![REFUSED, RESET], vec![]),
    ] {
        let script = Script::new(answers);
        script.is(readiness);
        let client = script.retry(&layer().attempt_timeout(ms(300)));
        let mut call = spawn(client.oneshot(3));
        assert!(call.poll().is_pending());
        drop(call);
        assert_eq!(script.under_way(), 0);
        assert_eq!(Arc::strong_count(&script), 1, "something is still held");
    }
}

/// Calls that must be over by a certain time.
#[derive(Clone)]
struct Until(Timestamp);

impl<S> Ruled<S> for Until {}

impl Replay<u32> for Until {
    type Call = u32;
    type Request = u32;

    fn begin(&self, request: u32) -> (u32, u32) {
        (request, request)
    }
    fn may_repeat(&self, _: &u32) -> bool {
        true
    }
    fn is_idempotent(&self, _: &u32) -> bool {
        true
    }
    fn again(&self, call: &mut u32, next: Next) -> Option<u32> {
        assert!(next.remaining.is_some());
        Some(*call + next.previous)
    }
    fn deadline(&self, _: &u32) -> Option<Timestamp> {
        Some(self.0)
    }
}

impl Rules<u32, u32> for Until {
    type Response = u32;
    type Peek = Ready<Result<u32, BoxError>>;

    fn peek(&self, response: u32) -> Self::Peek {
        ready(Ok(response))
    }
    fn judge(&self, _: &mut u32, result: &mut Result<u32, BoxError>) -> Verdict {
        match result {
            Ok(_) => Verdict::Success,
            Err(_) => Verdict::Again { reach: Reach::Processed, after: Some(ms(100)) },
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_attempt_is_begun_after_the_deadline_and_its_number_is_passed_on() {
    let past = Script::new([RESET; 9]);
    layer().rules(Until(Timestamp::default())).layer(past.probe()).oneshot(1).await.unwrap_err();
    assert_eq!(past.attempts(), 1);

    let future = Script::new([RESET, RESET]);
    let response = layer().rules(Until(now())).layer(future.probe()).oneshot(1).await.unwrap();
    assert_eq!(response, 3, "the request of the third attempt says so");
}

/// A typical policy of users.
#[derive(Clone)]
struct Five(u32);

impl<Res> tower::retry::Policy<u32, Res, BoxError> for Five {
    type Future = tokio::time::Sleep;

    fn retry(
        &mut self,
        request: &mut u32,
        result: &mut Result<Res, BoxError>,
    ) -> Option<Self::Future> {
        if result.is_ok() || self.0 == 0 {
            return None;
        }
        self.0 -= 1;
        *request += 1;
        Some(sleep(ms(70)))
    }

    fn clone_request(&mut self, request: &u32) -> Option<u32> {
        Some(*request)
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_written_for_tower_keeps_working() {
    let script = Script::new([RESET; 5]);
    let start = Instant::now();
    let client = RetryLayer::with_policy(Five(5)).layer(script.probe());
    assert_eq!(client.oneshot(10).await.unwrap(), 15);
    assert_eq!(start.elapsed(), ms(350), "its own waits and no others");
    assert_eq!(script.attempts(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_policy_written_for_tower_may_be_given_a_budget() {
    let script = Script::new([RESET; 9]);
    let budget = Budget::share(0.0).floor_per_second(0);
    let client = RetryLayer::with_policy(Five(5)).budget(budget).layer(script.probe());
    client.oneshot(10).await.unwrap_err();
    assert_eq!(script.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_throttle_is_told_of_failures_and_successes() {
    let budget = Budget::throttle(4, 1.0);
    let script = Script::new([RESET, RESET, RESET]);
    let client = script.retry(&RetryLayer::new(budget.clone()));
    client.clone().oneshot(1).await.unwrap_err();
    assert_eq!(script.attempts(), 2, "two of four tokens are gone");
    client.clone().oneshot(1).await.unwrap_err();
    client.clone().oneshot(1).await.unwrap();
    client.oneshot(1).await.unwrap();
    assert_eq!(budget.balance(Timestamp::default()), 1);
}

/// Allocates nothing: answers at once, or the second time that it is asked.
#[derive(Clone)]
struct Echo {
    is_pending: bool,
}

struct EchoFuture(u32, bool);

impl Future for EchoFuture {
    type Output = Result<u32, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if std::mem::take(&mut self.1) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(self.0))
    }
}

impl Service<u32> for Echo {
    type Response = u32;
    type Error = BoxError;
    type Future = EchoFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> EchoFuture {
        EchoFuture(request, self.is_pending)
    }
}

#[test]
fn a_call_whose_first_attempt_succeeds_allocates_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    for is_pending in [false, true] {
        let mut client =
            layer().rules(AnyRules::new()).attempt_timeout(ms(300)).layer(Echo { is_pending });
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut call = || {
            let mut call = std::pin::pin!(client.call(3));
            while call.as_mut().poll(&mut cx).is_pending() {}
        };
        call();
        let allocations = allocation_counter::measure(|| (0..100).for_each(|_| call()));
        assert_eq!(allocations.count_total, 0, "pending: {is_pending}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_never_sent_ends_with_the_error_of_the_one_before() {
    let script = Script::new([RESET]);
    script.is([Readiness::Ready, Readiness::Pending, Readiness::Pending]);
    let layer = layer().attempt_timeout(ms(50));

    let error = script.retry(&layer).oneshot(1).await.unwrap_err();

    assert_eq!(error.to_string(), "attempt 1");
    assert!(cause::<AttemptTimeout>(error.as_ref()).is_none());
    assert_eq!(script.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_a_layer_below_does_not_hide_the_real_error() {
    let attempts = AtomicUsize::new(0);
    let down = || -> BoxError { io::Error::from(ErrorKind::ConnectionReset).into() };
    let service = tower::service_fn(|_: u32| {
        ready(Err::<u32, BoxError>(match attempts.fetch_add(1, Relaxed) {
            0 => down(),
            1 => LimitReached::new(1, Duration::ZERO).into(),
            _ => RequestThrottled::new(0.5).into(),
        }))
    });
    let service = layer().rules(AnyRules::idempotent()).layer(service);

    let error = service.clone().oneshot(1).await.unwrap_err();
    assert_eq!(attempts.load(Relaxed), 3);
    assert!(cause::<io::Error>(error.as_ref()).is_some(), "{error}");

    // If no other error is known, the caller gets the refusal.
    let error = service.oneshot(1).await.unwrap_err();
    assert!(cause::<RequestThrottled>(error.as_ref()).is_some(), "{error}");
}
