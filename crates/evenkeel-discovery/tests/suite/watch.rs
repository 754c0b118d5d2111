//! The promises of the reconnect loop to every source behind it.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    backoff::Backoff,
    discover::{Discovery, Update, Watch},
    endpoint::Endpoint,
    error::cause,
};
use evenkeel_discovery::{
    Poll,
    watch::{Reconnect, Session, Source, SourcePanicked, Stale},
};
use futures_util::{FutureExt, StreamExt};
use tokio::{
    runtime::Builder,
    time::{Instant, advance, timeout},
};

fn endpoint(n: u16) -> Endpoint {
    format!("10.0.0.1:{n}").parse().unwrap()
}

const HOUR: Duration = Duration::from_secs(3_600);

/// A source that plays a script, one line per session, and repeats the last.
#[derive(Clone)]
struct Scripted {
    script: Arc<Mutex<VecDeque<Line>>>,
    sessions: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

#[derive(Clone)]
enum Line {
    Refuse,
    Panic,
    SayAndStay(Vec<Endpoint>),
    SayAndBreak(Vec<Endpoint>),
}

impl Scripted {
    fn new(script: impl IntoIterator<Item = Line>) -> Self {
        let script = Arc::new(Mutex::new(script.into_iter().collect()));
        Self { script, sessions: Arc::default(), open: Arc::default() }
    }

    fn play(&self, line: Line) {
        *self.script.lock().unwrap() = [line].into();
    }

    fn sessions(&self) -> usize {
        self.sessions.load(SeqCst)
    }
}

struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Source for Scripted {
    fn origin(&self) -> String {
        "scripted source".into()
    }

    async fn session(&mut self, session: &mut Session) -> Result<(), BoxError> {
        self.sessions.fetch_add(1, SeqCst);
        self.open.fetch_add(1, SeqCst);
        let _open = Open(self.open.clone());
        let line = {
            let mut script = self.script.lock().unwrap();
            if 1 < script.len() { script.pop_front() } else { script.front().cloned() }
        };
        match line.expect("a script has a line") {
            Line::Refuse => Err("refused".into()),
            Line::Panic => panic!("on purpose"),
            Line::SayAndBreak(set) => {
                session.set(set);
                Err("broken".into())
            }
            Line::SayAndStay(set) => {
                session.set(set);
                std::future::pending().await
            }
        }
    }
}

async fn next(watch: &mut Watch) -> Result<Update, BoxError> {
    timeout(HOUR, watch.next()).await.expect("news within an hour").expect("no end")
}

#[test]
fn a_watch_does_not_depend_on_a_runtime_that_is_not_driven() {
    let source = Scripted::new([Line::SayAndStay(vec![endpoint(1)])]);
    let discovery = Reconnect::new(source.clone());
    let runtime =
        || Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (resting, driven) = (runtime(), runtime());
    let mut first = discovery.watch();
    resting.block_on(async { assert!(first.next().now_or_never().is_none()) });
    assert_eq!(source.sessions(), 0, "its task has not run yet");

    let is_one = |update: Result<Update, BoxError>| matches!(update, Ok(Update::Set(set)) if set == [endpoint(1)]);
    assert!(is_one(driven.block_on(async { next(&mut discovery.watch()).await })));
    assert!(is_one(resting.block_on(next(&mut first))));
}

#[tokio::test(start_paused = true)]
async fn any_number_of_watchers_and_clones_share_one_session() {
    let source = Scripted::new([Line::SayAndStay(vec![endpoint(1)])]);
    let discovery = Reconnect::new(source.clone());
    let mut watches: Vec<_> = (0..10).map(|_| discovery.clone().watch()).collect();
    assert_eq!(source.sessions(), 0, "nothing happens before a watch is polled");

    for watch in &mut watches {
        assert_eq!(next(watch).await.unwrap(), Update::Set(vec![endpoint(1)]));
    }
    assert_eq!((source.sessions(), source.open.load(SeqCst)), (1, 1));

    watches.truncate(1);
    tokio::task::yield_now().await;
    assert_eq!(source.open.load(SeqCst), 1, "one watcher is left");
    drop(watches);
    tokio::task::yield_now().await;
    assert_eq!(source.open.load(SeqCst), 0, "the session ended with its last watcher");

    next(&mut discovery.watch()).await.unwrap();
    assert_eq!(source.sessions(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_last_good_set_stays_while_sessions_break_and_each_failure_is_told_once() {
    let good = Line::SayAndBreak(vec![endpoint(1)]);
    let source = Scripted::new([good, Line::Refuse, Line::Refuse, Line::Refuse, Line::Refuse]);
    let mut watch = Reconnect::new(source.clone()).seed(1).watch();

    assert_eq!(next(&mut watch).await.unwrap(), Update::Set(vec![endpoint(1)]));
    assert!(next(&mut watch).await.is_err(), "it broke");
    let refused = next(&mut watch).await.unwrap_err().to_string();
    assert!(refused.starts_with("scripted source failed (endpoints kept: 1): "), "{refused}");

    let silence = timeout(HOUR, watch.next()).await;
    assert!(silence.is_err(), "nothing new for an hour: {silence:?}");
    assert!(100 < source.sessions(), "it was tried all the time");
}

#[tokio::test(start_paused = true)]
async fn alternating_errors_are_reported_once_each_up_to_a_bound() {
    #[derive(Clone)]
    struct Moody(u64, u64);

    impl Source for Moody {
        fn origin(&self) -> String {
            "moody source".into()
        }

        async fn session(&mut self, _: &mut Session) -> Result<(), BoxError> {
            self.0 += 1;
            Err(format!("mood {}", self.0 % self.1).into())
        }
    }

    for (moods, expected) in [(3, 3), (1_000, 8)] {
        let mut watch = Reconnect::new(Moody(0, moods)).seed(3).watch();
        let mut told = 0;
        while let Ok(news) = timeout(HOUR, watch.next()).await {
            news.expect("no end").unwrap_err();
            told += 1;
        }
        assert_eq!(told, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn tries_slow_down_and_the_back_off_starts_over_after_good_news() {
    let source = Scripted::new([Line::Refuse]);
    let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
    let mut watch = Reconnect::new(source.clone()).backoff(backoff).seed(2).watch();
    next(&mut watch).await.unwrap_err();

    let start = Instant::now();
    assert!(timeout(HOUR, watch.next()).await.is_err());
    let tries = source.sessions();
    assert!((3_600 / 30..=3_600 / 15 + 8).contains(&tries), "{tries} tries in an hour");
    assert_eq!(start.elapsed(), HOUR);

    source.play(Line::SayAndBreak(vec![endpoint(1)]));
    next(&mut watch).await.unwrap();
    source.play(Line::SayAndStay(vec![endpoint(2)]));
    next(&mut watch).await.unwrap_err();
    let broken_at = Instant::now();
    assert_eq!(next(&mut watch).await.unwrap(), Update::Set(vec![endpoint(2)]));
    assert!(broken_at.elapsed() <= Duration::from_secs(1), "the back-off started over");
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_source_is_a_failure_like_any_other() {
    let source = Scripted::new([Line::Panic, Line::SayAndStay(vec![endpoint(1)])]);
    let mut watch = Reconnect::new(source).watch();

    let panicked = next(&mut watch).await.unwrap_err();
    assert!(cause::<SourcePanicked>(&*panicked).is_some());
    assert!(next(&mut watch).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_set_that_is_too_old_is_dropped_when_its_time_has_come_and_not_before() {
    let max_age = Duration::from_secs(300);
    let source = Scripted::new([Line::SayAndBreak(vec![endpoint(1)]), Line::Refuse]);
    let mut watch = Reconnect::new(source.clone()).max_stale(max_age).watch();
    next(&mut watch).await.unwrap();
    next(&mut watch).await.unwrap_err();
    let broken_at = Instant::now();
    next(&mut watch).await.unwrap_err();

    assert_eq!(next(&mut watch).await.unwrap(), Update::Set(vec![]));
    assert_eq!(broken_at.elapsed(), max_age);
    let stale = next(&mut watch).await.unwrap_err();
    assert_eq!(cause::<Stale>(&*stale).unwrap().max_age, max_age);

    source.play(Line::SayAndStay(vec![endpoint(2)]));
    while !matches!(next(&mut watch).await, Ok(Update::Set(set)) if set == [endpoint(2)]) {}
}

#[test]
fn a_watch_survives_the_runtime_that_another_watcher_used() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let discovery = Reconnect::new(Scripted::new([Line::SayAndStay(vec![endpoint(1)])]));
    let mut early = discovery.watch();
    let first = runtime();
    assert!(first.block_on(early.next()).unwrap().is_ok());
    drop(first);

    let second = runtime();

    assert!(second.block_on(early.next()).is_none(), "its task is gone, so it ends");
    assert!(second.block_on(discovery.watch().next()).unwrap().is_ok(), "a new watch starts over");
}

#[tokio::test(start_paused = true)]
async fn a_function_is_polled_at_its_interval_with_jitter() {
    let polls = Arc::new(Mutex::new(vec![]));
    let times = polls.clone();
    let poll = Poll::new(Duration::from_secs(10), move || {
        times.lock().unwrap().push(Instant::now());
        std::future::ready(Ok::<_, BoxError>(vec![endpoint(1)]))
    });
    let mut watch = poll.seed(5).watch();
    next(&mut watch).await.unwrap();

    assert!(timeout(HOUR, watch.next()).await.is_err(), "an equal answer is no news");

    let polls = polls.lock().unwrap();
    let gaps: Vec<_> = polls.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
    assert!(gaps.iter().all(|gap| (9.0..11.1).contains(gap)), "{gaps:?}");
    assert!(gaps.iter().any(|gap| *gap < 9.5), "no jitter downwards: {gaps:?}");
    assert!(gaps.iter().any(|gap| 10.5 < *gap), "no jitter upwards: {gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_polls_at_once_but_only_so_often() {
    let polls = Arc::<AtomicUsize>::default();
    let count = polls.clone();
    let poll = Poll::new(HOUR, move || {
        let n = count.fetch_add(1, SeqCst) as u16 + 1;
        std::future::ready(Ok::<_, BoxError>(vec![endpoint(n)]))
    });
    poll.refresh();
    let mut watch = poll.watch();
    assert_eq!(next(&mut watch).await.unwrap(), Update::Set(vec![endpoint(1)]));
    let start = Instant::now();

    poll.clone().refresh();
    assert_eq!(next(&mut watch).await.unwrap(), Update::Set(vec![endpoint(2)]));
    assert_eq!(start.elapsed(), Duration::ZERO);

    for _ in 0..1_000 {
        poll.refresh();
        advance(Duration::from_millis(10)).await;
        let _ = watch.next().now_or_never();
    }
    let polls = polls.load(SeqCst);
    assert!((12..=14).contains(&polls), "{polls} polls in ten seconds of refreshes");
}

#[tokio::test(start_paused = true)]
async fn a_polled_function_that_hangs_is_given_up_and_asked_again() {
    let polls = Arc::<AtomicUsize>::default();
    let count = polls.clone();
    let poll = Poll::new(Duration::from_secs(1), move || {
        let n = count.fetch_add(1, SeqCst);
        async move {
            if n == 0 {
                std::future::pending::<()>().await;
            }
            Ok::<_, BoxError>(vec![endpoint(1)])
        }
    });
    let mut watch = poll.timeout(Duration::from_secs(3)).watch();

    let hung = next(&mut watch).await.unwrap_err();
    assert!(cause::<evenkeel_discovery::poll::PollTimedOut>(&*hung).is_some());
    assert!(next(&mut watch).await.is_ok());
}

#[cfg(feature = "metrics")]
#[tokio::test(start_paused = true)]
async fn a_source_that_fails_is_seen_in_metrics_until_it_works_again() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    // A snapshot consumes the values that it reads.
    let read = |name: &str| {
        let series = recorder.snapshotter().snapshot().into_vec();
        let values = series.into_iter().filter(|(key, ..)| key.key().name() == name);
        values.map(|(.., value)| value).next()
    };
    let source = Scripted::new([Line::Refuse]);
    let mut watch = Reconnect::new(source.clone()).watch();

    next(&mut watch).await.unwrap_err();
    assert_eq!(read("evenkeel.discovery.failing"), Some(DebugValue::Gauge(1.0.into())));
    source.play(Line::SayAndStay(vec![endpoint(1)]));
    next(&mut watch).await.unwrap();

    assert_eq!(read("evenkeel.discovery.failing"), Some(DebugValue::Gauge((-1.0).into())));
}
