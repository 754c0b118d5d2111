//! Whether Redis can be reached: known once for all keys, logged once for each change.

use std::{
    error::Error,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use evenkeel_core::{error::cause, time::Timestamp};

use crate::refusal::Refusal;

/// The target of all tracing events here.
pub(crate) const TARGET: &str = "evenkeel::redis";

/// Whether the server answers.
///
/// All counting and logging about the server happens here: [`record_answer`] and [`record_failure`] are called
/// at the end of every question.
///
/// [`record_answer`]: Reach::record_answer
/// [`record_failure`]: Reach::record_failure
pub(crate) struct Reach {
    name: Box<str>,
    /// How long the server is not asked after a failure.
    rest: Duration,
    /// When it may be asked again; zero while it answers.
    ask_again: AtomicU64,
}

impl Reach {
    pub(crate) fn new(name: &str, rest: Duration) -> Self {
        Self { name: name.into(), rest, ask_again: AtomicU64::new(0) }
    }

    /// Whether it answered the last question.
    pub(crate) fn is_up(&self) -> bool {
        self.ask_again.load(Ordering::Acquire) == 0
    }

    /// Whether it may be asked. While it does not answer, one question at a time may.
    pub(crate) fn may_ask(&self, now: Timestamp) -> bool {
        let due = self.ask_again.load(Ordering::Acquire);
        if due == 0 {
            return true;
        }
        let next = (now + self.rest).as_nanos();
        due <= now.as_nanos()
            && self
                .ask_again
                .compare_exchange(due, next, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }

    pub(crate) fn record_answer(&self) {
        if self.ask_again.swap(0, Ordering::AcqRel) != 0 {
            tracing::info!(target: TARGET, quota = &*self.name, "redis answers again");
        }
    }

    pub(crate) fn record_failure(&self, now: Timestamp, error: &(dyn Error + 'static)) {
        let before = self.ask_again.swap((now + self.rest).as_nanos(), Ordering::AcqRel);
        let refusal = cause(error).map(Refusal::of);
        if before == 0 && refusal == Some(Refusal::Configuration) {
            let quota = &*self.name;
            tracing::error!(target: TARGET, quota, error, "redis refuses: its configuration or ours is wrong");
        } else if before == 0 {
            tracing::warn!(target: TARGET, quota = &*self.name, error, "redis does not answer");
        } else {
            tracing::debug!(target: TARGET, quota = &*self.name, error, "redis still does not answer");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{
        Event, Level, Metadata, Subscriber,
        span::{Attributes, Id, Record},
    };

    use super::*;

    /// Records the level of each event.
    #[derive(Clone, Default)]
    struct Levels(Arc<Mutex<Vec<Level>>>);

    impl Subscriber for Levels {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            self.0.lock().unwrap().push(*event.metadata().level());
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn an_outage_and_its_end_are_logged_once_each() {
        let levels = Levels::default();
        // While one dispatcher is alone, the thread that meets an event first decides for all whether it is recorded.
        let _second = tracing::Dispatch::new(Levels::default());
        tracing::subscriber::with_default(levels.clone(), || {
            let reach = Reach::new("test", Duration::from_secs(1));
            let start = Timestamp::from_nanos(1 << 62);
            reach.record_answer();
            reach.record_failure(start, &std::io::Error::other("down"));
            reach.record_failure(start, &std::io::Error::other("down"));
            reach.record_answer();
            reach.record_answer();
        });
        assert_eq!(*levels.0.lock().unwrap(), [Level::WARN, Level::DEBUG, Level::INFO]);
    }

    #[test]
    fn after_a_failure_one_request_in_a_while_asks_until_redis_answers() {
        let reach = Reach::new("test", Duration::from_secs(1));
        let start = Timestamp::from_nanos(1 << 62);
        assert!(reach.may_ask(start) && reach.is_up());

        reach.record_failure(start, &std::io::Error::other("down"));
        assert!(!reach.may_ask(start) && !reach.is_up());
        let later = start + Duration::from_secs(1);
        assert!(reach.may_ask(later));
        assert!(!reach.may_ask(later), "another request asks already");

        reach.record_answer();
        assert!(reach.may_ask(later) && reach.is_up());
    }
}
