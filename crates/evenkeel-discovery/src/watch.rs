//! The one loop behind every source that can fail: reconnect, back off, keep the last good set.
//!
//! A [`Source`] implements one session with a registry: connect, report the whole set, then report
//! each change, until the connection breaks. [`Reconnect`] makes a discovery of it:
//!
//! - When a session ends, another follows after a back-off with jitter (1 s to 10 s). The back-off
//!   starts again from its minimum once a session has brought news.
//! - The last good set stays in use while sessions fail, without a limit unless
//!   [`max_stale`](Reconnect::max_stale) sets one.
//! - What a [suspicious answer](Session::answer) misses stays in use for [`hold`](Reconnect::hold).
//! - There is one session, however many watchers and clones of the handle there are. It starts with
//!   the first watcher and ends with the last.
//! - Watchers get a failure as an error. It is logged when it begins and when it ends, not at every
//!   try.
//!
//! Write a `Source` for a registry that has a watch or a stream of its own. For a registry that can
//! only be asked again and again, [`Poll`](crate::Poll) takes less code.
//!
//! ```
//! use evenkeel::core::{BoxError, discover::{Discovery, Update}, endpoint::Endpoint};
//! use evenkeel::discovery::watch::{Reconnect, Session, Source};
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

use std::{fmt, panic::AssertUnwindSafe, sync::Arc};

use evenkeel_core::{
    BoxError,
    discover::{Discovery, Watch},
};
use futures_util::FutureExt;
use tokio::sync::watch;

use crate::{
    journal::Journal,
    refresh::Refresh,
    running::{Running, Work},
    settings::{Settings, setters},
};

pub use crate::{
    session::Session,
    trust::{Answer, Change, Stale},
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

/// The source's own code panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the code that reads the source panicked")]
#[non_exhaustive]
pub struct SourcePanicked;

/// A discovery that follows a [`Source`] through its failures.
///
/// A clone shares the session. A setter returns a handle with a session of its own.
#[derive(Clone)]
pub struct Reconnect<S> {
    source: S,
    settings: Settings,
    running: Arc<Running>,
}

impl<S: Source> Reconnect<S> {
    /// Follows `source`.
    #[must_use]
    pub fn new(source: S) -> Self {
        Self { source, settings: Settings::default(), running: Arc::default() }
    }

    setters!(backoff hold max_stale seed);

    pub(crate) fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self.apart()
    }

    /// Changes the source itself.
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
        let origin = self.source.origin();
        let (writer, journal) = watch::channel(Journal::new(&origin));
        let asked = Arc::default();
        let refresh = Refresh::new(Arc::clone(&asked));
        let session = Session::new(&origin, writer, refresh, &self.settings);
        Work { journal, refresh: asked, future: run(self.source, session, self.settings) }
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

impl<S: Source> fmt::Debug for Reconnect<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = self.source.origin();
        f.debug_struct("Reconnect").field("origin", &origin).finish_non_exhaustive()
    }
}

async fn run<S: Source>(mut source: S, mut session: Session, settings: Settings) {
    loop {
        let outcome = AssertUnwindSafe(source.session(&mut session)).catch_unwind().await;
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => session.fail(error),
            Err(_) => session.fail(SourcePanicked),
        }
        session.rest(settings.backoff).await;
    }
}
