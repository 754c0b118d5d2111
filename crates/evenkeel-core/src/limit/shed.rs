//! What a server refuses because it could not finish it in time.

use std::time::Duration;

use crate::{
    sync::{AtomicU32, AtomicU64, Ordering},
    time::Timestamp,
};

/// How much a request matters. Smaller numbers matter more; there are 16.
///
/// The four named ones are the SRE book's criticalities. Those in between are for a second order
/// within each, as in DAGOR: for example a hash of the user, so that all calls of a user get
/// through, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// Users see its refusal, and it is grave.
    pub const CRITICAL_PLUS: Self = Self(0);
    /// Users see its refusal. The priority of requests that say nothing.
    pub const CRITICAL: Self = Self(4);
    /// Some refusals are expected: batch jobs that try again.
    pub const SHEDDABLE_PLUS: Self = Self(8);
    /// It is often refused, partly or completely.
    pub const SHEDDABLE: Self = Self(12);

    /// How many priorities there are.
    pub const COUNT: usize = 16;

    /// The priority `level`; those above 15 are 15.
    #[must_use]
    pub const fn new(level: u8) -> Self {
        Self(if level < Self::COUNT as u8 { level } else { Self::COUNT as u8 - 1 })
    }

    /// Its number, 0 for what matters most.
    #[must_use]
    pub const fn level(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self::CRITICAL
    }
}

/// How much requests of type `Req` matter. A closure is one.
pub trait ReadPriority<Req>: Clone {
    /// How much this request matters.
    fn priority(&self, request: &Req) -> Priority;
}

/// All requests matter equally.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllAlike;

impl<Req> ReadPriority<Req> for AllAlike {
    #[inline]
    fn priority(&self, _: &Req) -> Priority {
        Priority::default()
    }
}

impl<Req, F: Fn(&Req) -> Priority + Clone> ReadPriority<Req> for F {
    #[inline]
    fn priority(&self, request: &Req) -> Priority {
        self(request)
    }
}

/// Decides which requests a server refuses, by how long they wait until their service begins.
///
/// It takes the least waiting time of an interval, as CoDel does: a burst makes some requests wait,
/// but only a standing queue makes all of them wait. While the least waiting time is above the
/// target, the server is overloaded. Then
///
/// * a request waits for the target at most, and otherwise for the interval ("controlled delay" of
///   Fail at Scale, ACM Queue 2015);
/// * each interval lets in a twentieth less of the traffic, the least important first. Later, when
///   the server is no longer overloaded, each lets in a hundredth more (DAGOR, SoCC 2018: α and β).
///   A priority that gets in partly is drawn by lot.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::core::{limit::{Priority, Shed}, time::Timestamp};
///
/// let shed = Shed::new();
/// let now = Timestamp::from_nanos(1 << 62);
/// assert!(shed.admit(Priority::SHEDDABLE, || 0.5, || now));
/// shed.record_start(Duration::from_millis(1), || now);
/// assert_eq!(shed.max_wait(now), Duration::from_millis(100));
/// ```
#[derive(Debug)]
pub struct Shed {
    target: Duration,
    interval: Duration,
    /// When the interval began.
    began: AtomicU64,
    /// The least waiting time of the interval, in nanoseconds.
    min_wait: AtomicU64,
    is_overloaded: AtomicU32,
    /// Priorities below it are let in. Of the priority in which it lies, the fraction is let in.
    level: AtomicU32,
    /// Requests of the interval, by priority.
    asked: [AtomicU32; Priority::COUNT],
    /// 1 while a thread ends an interval. No thread waits for it.
    closing: AtomicU32,
}

/// Levels are kept in units of 1/65,536.
const ONE: u32 = 1 << 16;
const MAX_LEVEL: u32 = Priority::COUNT as u32 * ONE;

/// No more than this are counted in one interval.
const MAX_REQUESTS: u32 = 1 << 30;

/// After an interval of overload, this much less of what was let in is let in. After an interval
/// without, this much more of the traffic.
const DECREASE: f64 = 0.05;
const INCREASE: f64 = 0.01;

/// This much of the traffic is let in, however great the overload: with none, its end could not be
/// seen.
const MIN_SHARE: f64 = 0.01;

impl Shed {
    /// A target of 5 milliseconds over an interval of 100.
    #[must_use]
    pub fn new() -> Self {
        Self {
            target: Duration::from_millis(5),
            interval: Duration::from_millis(100),
            began: AtomicU64::new(0),
            min_wait: AtomicU64::new(u64::MAX),
            is_overloaded: AtomicU32::new(0),
            level: AtomicU32::new(MAX_LEVEL),
            asked: std::array::from_fn(|_| AtomicU32::new(0)),
            closing: AtomicU32::new(0),
        }
    }

    /// Sets how long the least wait of an interval may be. Default 5 milliseconds.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn target(mut self, target: Duration) -> Self {
        assert!(!target.is_zero(), "a target of no time");
        self.target = target;
        self
    }

    /// Sets how long a queue must stand to be an overload, and how long a request waits at most
    /// without one. Default 100 milliseconds.
    ///
    /// It should be several times as long as a request takes.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        assert!(!interval.is_zero(), "an interval of no time");
        self.interval = interval;
        self
    }

    /// Counts a request that is let in without [`admit`](Self::admit): its service can begin at
    /// once, and no other waits. That is no overload, whatever was before.
    pub fn let_in(&self, priority: Priority, now: impl FnOnce() -> Timestamp) {
        self.count(priority);
        if self.is_refusing() {
            self.tell(now());
        }
    }

    /// Whether a request of this priority is let in. Asked on its arrival, if it would have to wait
    /// or others wait. `draw` gives a number from \[0, 1).
    ///
    /// While nothing is refused, it calls neither `draw` nor `now`.
    #[must_use]
    pub fn admit(
        &self,
        priority: Priority,
        draw: impl FnOnce() -> f64,
        now: impl FnOnce() -> Timestamp,
    ) -> bool {
        self.count(priority);
        if !self.is_refusing() {
            return true;
        }
        self.tell(now());
        let level = self.level.load(Ordering::Relaxed);
        let from = u32::from(priority.level()) * ONE;
        if from + ONE <= level {
            return true;
        }
        from < level && draw() * f64::from(ONE) < f64::from(level - from)
    }

    /// The service of a request has begun, `waited` after it arrived.
    ///
    /// If it did not wait at all, `now` is not called.
    pub fn record_start(&self, waited: Duration, now: impl FnOnce() -> Timestamp) {
        let waited = waited.as_nanos() as u64;
        if waited < self.min_wait.load(Ordering::Relaxed) {
            self.min_wait.fetch_min(waited, Ordering::AcqRel);
        }
        // After it is noted: it waited in the interval that may end now.
        if 0 < waited {
            self.tell(now());
        }
    }

    /// A request was refused after it had waited for `waited`, before its service began.
    pub fn record_refusal(&self, waited: Duration, now: Timestamp) {
        self.record_start(waited, || now);
    }

    /// How long a request that arrives now may wait.
    #[must_use]
    pub fn max_wait(&self, now: Timestamp) -> Duration {
        self.tell(now);
        if self.is_overloaded() { self.target } else { self.interval }
    }

    /// Whether a queue stands, as far as is known.
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        self.is_overloaded.load(Ordering::Relaxed) != 0
    }

    /// What is let in: all priorities below this number, and the fraction of the priority in which
    /// it lies.
    #[must_use]
    pub fn level(&self) -> f64 {
        f64::from(self.level.load(Ordering::Relaxed)) / f64::from(ONE)
    }

    fn count(&self, priority: Priority) {
        let asked = &self.asked[usize::from(priority.level())];
        if asked.load(Ordering::Relaxed) < MAX_REQUESTS {
            asked.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether it refuses some requests, or may soon.
    fn is_refusing(&self) -> bool {
        self.level.load(Ordering::Relaxed) != MAX_LEVEL || self.is_overloaded()
    }

    /// Ends the interval if it is over.
    #[inline]
    fn tell(&self, now: Timestamp) {
        let began = self.began.load(Ordering::Acquire);
        if self.interval <= now.since(Timestamp::from_nanos(began)) {
            self.close(began, now);
        }
    }

    #[cold]
    fn close(&self, began: u64, now: Timestamp) {
        if self.closing.swap(1, Ordering::AcqRel) != 0 {
            return;
        }
        // Another thread may have ended it just before.
        if self.began.load(Ordering::Acquire) == began {
            self.began.store(now.as_nanos(), Ordering::Release);
            let min_wait = self.min_wait.swap(u64::MAX, Ordering::AcqRel);
            let asked = self.asked.each_ref().map(|asked| asked.swap(0, Ordering::Relaxed));
            let silence = now.since(Timestamp::from_nanos(began)).as_nanos();
            let intervals = silence / self.interval.as_nanos().max(1);
            // An interval in which nothing waited had no overload, nor had the time before the
            // first.
            let is_overloaded =
                began != 0 && min_wait != u64::MAX && self.target <= Duration::from_nanos(min_wait);
            self.is_overloaded.store(u32::from(is_overloaded), Ordering::Relaxed);
            let level = f64::from(self.level.load(Ordering::Relaxed)) / f64::from(ONE);
            let recovered = INCREASE * intervals.min(100) as f64;
            let level = next_level(level, asked, is_overloaded, recovered);
            let level = (level * f64::from(ONE)).round() as u32;
            self.level.store(level.min(MAX_LEVEL), Ordering::Relaxed);
        }
        self.closing.store(0, Ordering::Release);
    }
}

impl Default for Shed {
    fn default() -> Self {
        Self::new()
    }
}

/// The level that lets in a twentieth less than `level` did of what was asked, or `recovered` more.
fn next_level(
    level: f64,
    asked: [u32; Priority::COUNT],
    is_overloaded: bool,
    recovered: f64,
) -> f64 {
    let total: f64 = asked.iter().map(|&asked| f64::from(asked)).sum();
    if total == 0.0 {
        return if is_overloaded { level } else { level + recovered * Priority::COUNT as f64 };
    }
    let mut let_in = 0.0;
    for (index, &asked) in asked.iter().enumerate() {
        let_in += f64::from(asked) * (level - index as f64).clamp(0.0, 1.0);
    }
    let mut wanted = if is_overloaded {
        (let_in * (1.0 - DECREASE)).max(total * MIN_SHARE)
    } else if total <= let_in + total * recovered {
        return Priority::COUNT as f64;
    } else {
        let_in + total * recovered
    };
    for (index, &asked) in asked.iter().enumerate() {
        let asked = f64::from(asked);
        if wanted <= asked && 0.0 < asked {
            return index as f64 + wanted / asked;
        }
        wanted -= asked;
    }
    Priority::COUNT as f64
}
