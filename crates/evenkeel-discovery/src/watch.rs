//! The one loop behind every source that can fail: reconnect, back off, keep the last good set.
//!
//! A [`Source`] implements one session with a registry: connect, report the whole set, then report
//! each change, until the connection breaks. [`Reconnect`] makes a discovery of it:
//!
//! - When a session ends, another follows after a back-off with jitter (1 s to 10 s). The back-off
//!   starts again from its minimum once a session has brought news.
//! - The last good set stays in use while sessions fail, without a limit unless
//!   [`stale_max`](Reconnect::stale_max) sets one.
//! - There is one session, however many watchers and clones of the handle there are. It starts with
//!   the first watcher and ends with the last.
//! - Watchers get a failure as an error. It is logged when it begins and when it ends, not at every
//!   try.
//!
//! Write a `Source` for a registry that has a watch or a stream of its own. For a registry that can
//! only be asked again and again, [`Poll`](crate::Poll) takes less code.
//!
//! ```
//! use evenkeel_core::{BoxError, discover::{Discovery, Update}, endpoint::Endpoint};
//! use evenkeel_discovery::watch::{Reconnect, Session, Source};
//! use futures_util::StreamExt;
//!
//! #[derive(Clone)]
//! struct Registry;
//!
//! impl Source for Registry {
//!     fn origin(&self) -> String {
//!         "registry at example.test".into()
//!     }
//!
//!     async fn session(&mut self, session: &mut Session) -> Result<(), BoxError> {
//!         let listed: Endpoint = "10.0.0.1:80".parse()?;
//!         session.set(vec![listed]);
//!         std::future::pending().await // Here the registry's own events would be read.
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let mut watch = Reconnect::new(Registry).watch();
//! assert!(matches!(watch.next().await, Some(Ok(Update::Set(set))) if set.len() == 1));
//! # });
//! ```

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use evenkeel_core::{
    BoxError,
    backoff::Backoff,
    discover::{Discovery, Watch},
    endpoint::{Address, Endpoint},
    rng::Rng,
};
use futures_util::FutureExt;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    clock,
    error::chain,
    journal::Journal,
    refresh::Refresh,
    running::{Running, Work},
};

/// One session with a source of endpoints.
///
/// The source is cloned when the first watcher arrives. The clone lives as long as there are
/// watchers, and can keep from session to session what it needs to resume.
pub trait Source: Clone + Send + Sync + 'static {
    /// The name of the source in errors and logs, such as `dns db.internal:5432`.
    fn origin(&self) -> String;

    /// Follows the source until the connection breaks, and reports what it says to `session`.
    ///
    /// After an error, and after a regular end too, another session follows after a back-off. A
    /// session has to set its own timeouts: one that waits for ever is never replaced.
    fn session(
        &mut self,
        session: &mut Session,
    ) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// How many errors of one outage are passed on.
const TOLD_MAX: usize = 8;

/// What a [`Source`] reports to, and where it learns what its watchers want.
#[derive(Debug)]
pub struct Session {
    origin: Arc<str>,
    journal: watch::Sender<Journal>,
    refresh: Refresh,
    rng: Rng,
    /// How many sessions have ended since the last good news.
    ended: u32,
    /// When the first of them ended.
    lost: Option<Instant>,
    failing: Option<Failing>,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    /// The errors passed on since then; a broken connection has several texts that take turns.
    told: Vec<String>,
    _counted: evenkeel_metrics::Held,
}

impl Session {
    /// Reports the whole set. The same set again is good news too, but watchers get no update.
    pub fn set(&mut self, endpoints: Vec<Endpoint>) {
        self.journal.send_if_modified(|journal| journal.replace(endpoints));
        self.good();
    }

    /// Reports that an endpoint is new or has changed.
    pub fn insert(&mut self, endpoint: Endpoint) {
        self.journal.send_if_modified(|journal| journal.insert(endpoint));
        self.good();
    }

    /// Reports that an endpoint is gone.
    pub fn remove(&mut self, address: &Address) {
        self.journal.send_if_modified(|journal| journal.remove(address));
        self.good();
    }

    /// Reports that something is wrong while the session goes on. The set stays.
    ///
    /// Without good news in between, the same error is passed on to watchers only once, and no more
    /// than eight errors are.
    pub fn fail(&mut self, error: impl Into<BoxError>) {
        let error = error.into();
        let text = chain(&*error);
        evenkeel_metrics::source_failed();
        let origin = &*self.origin;
        match &mut self.failing {
            Some(failing) => {
                tracing::debug!(origin, error = text, "discovery fails still");
                if TOLD_MAX <= failing.told.len() || failing.told.contains(&text) {
                    return;
                }
                failing.told.push(text);
            }
            None => {
                let kept = self.journal.borrow().len();
                tracing::warn!(origin, error = text, kept, "discovery fails");
                let _counted = evenkeel_metrics::source_failing();
                self.failing = Some(Failing { since: clock::now(), told: vec![text], _counted });
            }
        }
        self.journal.send_modify(|journal| journal.fail(error));
    }

    /// Changes what is known while something is still wrong, so the failure goes on.
    #[cfg_attr(not(feature = "kubernetes"), allow(dead_code))]
    pub(crate) fn amend(&mut self, change: impl FnOnce(&mut Journal) -> bool) {
        self.journal.send_if_modified(change);
        (self.ended, self.lost) = (0, None);
    }

    /// Reports that the last set still holds. It has the effect of the same set again, without the
    /// comparison.
    #[cfg_attr(not(any(feature = "consul", feature = "kubernetes")), allow(dead_code))]
    pub(crate) fn confirm(&mut self) {
        self.good();
    }

    /// Whether nothing has failed since the last good news.
    #[cfg_attr(not(feature = "consul"), allow(dead_code))]
    pub(crate) fn is_well(&self) -> bool {
        self.lost.is_none() && self.failing.is_none()
    }

    /// How many endpoints are known.
    #[must_use]
    pub fn known(&self) -> usize {
        self.journal.borrow().len()
    }

    /// Waits for `delay`, or shorter if a watcher asks for fresh news.
    ///
    /// Requests for fresh news are granted at once up to 3 after a calm, and then once a second.
    pub async fn wait(&mut self, delay: Duration) {
        self.refresh.wait(delay).await;
    }

    /// Waits until a watcher asks for fresh news, at the rate of [`wait`](Self::wait).
    pub async fn refresh_wanted(&mut self) {
        self.refresh.granted().await;
    }

    /// The randomness for jitter.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// How long ago the first session ended since the last good news; zero if none has. An outage
    /// is reported once: call this when the registry has answered.
    #[cfg_attr(
        not(any(feature = "consul", feature = "etcd", feature = "kubernetes")),
        allow(dead_code)
    )]
    pub(crate) fn lost_for(&mut self) -> Duration {
        self.lost.take().map_or(Duration::ZERO, |lost| clock::now().duration_since(lost))
    }

    fn good(&mut self) {
        (self.ended, self.lost) = (0, None);
        if let Some(failing) = self.failing.take() {
            let endpoints = self.journal.borrow().len();
            let failed_for = failing.since.elapsed();
            let origin = &*self.origin;
            tracing::info!(origin, endpoints, ?failed_for, "discovery works again");
        }
    }

    /// Rests before the next session. If `stale_max` ends within the rest, the stale set is dropped
    /// then.
    async fn rest(&mut self, backoff: Backoff, stale_max: Option<Duration>) {
        let delay = backoff.delay(self.ended, &mut self.rng);
        self.ended = self.ended.saturating_add(1);
        self.lost.get_or_insert_with(clock::now);
        let stale_at = self.failing.as_ref().zip(stale_max).map(|(f, max)| f.since + max);
        let Some(stale_at) = stale_at.filter(|_| 0 < self.known()) else {
            return sleep(delay).await;
        };
        let rested_at = clock::now() + delay;
        if stale_at <= rested_at {
            sleep_until(stale_at).await;
            self.journal.send_if_modified(|journal| journal.replace(vec![]));
            // This is passed on, whatever was passed on before.
            self.failing.iter_mut().for_each(|failing| failing.told.clear());
            self.fail(Stale { age_max: stale_max.unwrap_or_default() });
        }
        sleep_until(rested_at).await;
    }
}

/// The source failed for so long that its last endpoints are no longer used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no news for {age_max:?}, so the last endpoints are no longer used")]
#[non_exhaustive]
pub struct Stale {
    /// How long the last endpoints were used while the source failed.
    pub age_max: Duration,
}

/// The source's own code panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the code that reads the source panicked")]
#[non_exhaustive]
pub struct SourcePanicked;

/// A discovery that follows a [`Source`] through its failures.
///
/// A clone shares the session. A setter returns a handle with a session of its own.
#[derive(Clone, Debug)]
pub struct Reconnect<S> {
    source: S,
    backoff: Backoff,
    stale_max: Option<Duration>,
    seed: Option<u64>,
    running: Arc<Running>,
}

impl<S: Source> Reconnect<S> {
    /// Follows `source`.
    #[must_use]
    pub fn new(source: S) -> Self {
        Self {
            source,
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(10)),
            stale_max: None,
            seed: None,
            running: Arc::default(),
        }
    }

    /// Sets the rest between two sessions. Default: 1 s to 10 s.
    ///
    /// A short one burdens a registry that is already struggling; a long one delays the first news
    /// after it recovers.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self.apart()
    }

    /// Sets how long the last good set is used while the source fails. Default: for ever.
    ///
    /// After that the set becomes empty. A short one turns an outage of the registry into an outage
    /// of the service; with a long one, an address may belong to another service by then.
    #[must_use]
    pub fn stale_max(mut self, age: Duration) -> Self {
        self.stale_max = Some(age);
        self.apart()
    }

    /// Sets the seed of the jitter. Default: the process's entropy.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self.apart()
    }

    /// Changes the source itself.
    #[cfg_attr(not(any(feature = "json", feature = "yaml", feature = "toml")), allow(dead_code))]
    pub(crate) fn with(mut self, change: impl FnOnce(&mut S)) -> Self {
        change(&mut self.source);
        self.apart()
    }

    /// A handle that is set up differently must not join the session of its original.
    fn apart(mut self) -> Self {
        self.running = Arc::default();
        self
    }

    fn start(self) -> Work<impl Future<Output = ()> + Send> {
        let origin: Arc<str> = self.source.origin().into();
        let (writer, journal) = watch::channel(Journal::new(&origin));
        let refresh = Arc::default();
        let session = Session {
            origin,
            journal: writer,
            refresh: Refresh::new(Arc::clone(&refresh)),
            rng: self.seed.map_or_else(Rng::from_entropy, Rng::with_seed),
            ended: 0,
            lost: None,
            failing: None,
        };
        Work { journal, refresh, future: run(self.source, session, self.backoff, self.stale_max) }
    }
}

impl<S: Source> Discovery for Reconnect<S> {
    fn watch(&self) -> Watch {
        // The task must not hold `running`, which holds the task.
        let unstarted = self.clone().apart();
        self.running.watch(move || unstarted.start())
    }

    fn refresh(&self) {
        self.running.refresh();
    }
}

async fn run<S: Source>(
    mut source: S,
    mut session: Session,
    backoff: Backoff,
    stale_max: Option<Duration>,
) {
    loop {
        let outcome = AssertUnwindSafe(source.session(&mut session)).catch_unwind().await;
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => session.fail(error),
            Err(_) => session.fail(SourcePanicked),
        }
        session.rest(backoff, stale_max).await;
    }
}
