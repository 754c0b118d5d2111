//! What a server does not begin, because it will not end it in time.

use std::time::Duration;

use crate::{
    sync::{AtomicU32, AtomicU64, Ordering},
    time::Timestamp,
};

/// How much a request matters. The smaller, the more; there are 16.
///
/// The four that are named are the SRE book's criticalities. Those between them are for a second order
/// within each, as DAGOR has: a hash of the user, say, so that a user gets all of its calls through, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// Refusing it is seen by users, and grave.
    pub const CRITICAL_PLUS: Self = Self(0);
    /// Refusing it is seen by users. What a request is that says nothing.
    pub const CRITICAL: Self = Self(4);
    /// Some refusals are expected: batch jobs that try again.
    pub const SHEDDABLE_PLUS: Self = Self(8);
    /// It is often refused, in part or altogether.
    pub const SHEDDABLE: Self = Self(12);

    /// How many there are.
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

/// All requests matter as much.
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
/// Of the waiting times of an interval it takes the least, as CoDel does: a burst makes some wait,
/// but only a queue that stands makes all of them. While that is above the target the server is overloaded,
/// and then
///
/// * a request waits for the target at most, and for the interval else ("controlled delay" of Fail at
///   Scale, ACM Queue 2015);
/// * each interval lets a twentieth less of the traffic in, the least important first, and later,
///   when it is no longer overloaded, a hundredth more (DAGOR, SoCC 2018: α and β). What a priority gets
///   in between all and nothing is drawn by lot.
///
/// ```
/// use std::time::Duration;
/// use evenkeel_core::{limit::{Priority, Shed}, time::Timestamp};
///
/// let shed = Shed::new();
/// let now = Timestamp::from_nanos(1 << 62);
/// assert!(shed.admit(Priority::SHEDDABLE, || 0.5, || now));
/// shed.began(Duration::from_millis(1), || now);
/// assert_eq!(shed.wait_max(now), Duration::from_millis(100));
/// ```
#[derive(Debug)]
pub struct Shed {
    target: Duration,
    interval: Duration,
    /// When the interval began.
    began: AtomicU64,
    /// The least waiting time of the interval, in nanoseconds.
    wait_min: AtomicU64,
    is_overloaded: AtomicU32,
    /// Priorities below it are let in; of the one that it lies in, the share of it behind the point.
    level: AtomicU32,
    /// Requests of the interval, by priority.
    asked: [AtomicU32; Priority::COUNT],
    /// 1 while a thread ends an interval. Nobody waits for it.
    closing: AtomicU32,
}

/// Levels are kept in units of a 65,536th.
const ONE: u32 = 1 << 16;
const LEVEL_MAX: u32 = Priority::COUNT as u32 * ONE;

/// More than that are not counted in one interval.
const ASKED_MAX: u32 = 1 << 30;

/// So much less of what was let in is let in after an interval of overload, and so much of the traffic
/// more after one without.
const DECREASE: f64 = 0.05;
const INCREASE: f64 = 0.01;

/// So much of the traffic is let in however great the overload: without any, nobody would see its end.
const SHARE_MIN: f64 = 0.01;

impl Shed {
    /// A target of 5 milliseconds over an interval of 100.
    #[must_use]
    pub fn new() -> Self {
        Self {
            target: Duration::from_millis(5),
            interval: Duration::from_millis(100),
            began: AtomicU64::new(0),
            wait_min: AtomicU64::new(u64::MAX),
            is_overloaded: AtomicU32::new(0),
            level: AtomicU32::new(LEVEL_MAX),
            asked: std::array::from_fn(|_| AtomicU32::new(0)),
            closing: AtomicU32::new(0),
        }
    }

    /// Sets the waiting time that may stand. Default 5 milliseconds.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn target(mut self, target: Duration) -> Self {
        assert!(!target.is_zero(), "a target of no time");
        self.target = target;
        self
    }

    /// Sets how long a queue must stand to be an overload, and how long a request waits at most without
    /// one. Default 100 milliseconds.
    ///
    /// It should be some times as long as a request takes.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        assert!(!interval.is_zero(), "an interval of no time");
        self.interval = interval;
        self
    }

    /// Counts a request that is let in without being [asked about](Self::admit): its service can begin at once, and
    /// no other waits. That is no overload, whatever was before.
    pub fn let_in(&self, priority: Priority, now: impl FnOnce() -> Timestamp) {
        self.count(priority);
        if self.is_refusing() {
            self.tell(now());
        }
    }

    /// Whether a request of this priority is let in, asked when it arrives and would have to wait, or others
    /// wait. `draw` gives a number
    /// from \[0, 1).
    ///
    /// While nothing is refused it asks for neither a number nor the time.
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
    /// If it did not wait at all, nobody asks for the time.
    pub fn began(&self, waited: Duration, now: impl FnOnce() -> Timestamp) {
        let waited = waited.as_nanos() as u64;
        if waited < self.wait_min.load(Ordering::Relaxed) {
            self.wait_min.fetch_min(waited, Ordering::AcqRel);
        }
        // After it is noted: it waited in the interval that may end now.
        if 0 < waited {
            self.tell(now());
        }
    }

    /// A request was refused after it had waited for so long, without its service having begun.
    pub fn gave_up(&self, waited: Duration, now: Timestamp) {
        self.began(waited, || now);
    }

    /// How long a request that arrives now may wait.
    #[must_use]
    pub fn wait_max(&self, now: Timestamp) -> Duration {
        self.tell(now);
        if self.is_overloaded() { self.target } else { self.interval }
    }

    /// Whether a queue stands, as far as was seen.
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        self.is_overloaded.load(Ordering::Relaxed) != 0
    }

    /// What is let in: all priorities below this number, and of the one that it lies in that share.
    #[must_use]
    pub fn level(&self) -> f64 {
        f64::from(self.level.load(Ordering::Relaxed)) / f64::from(ONE)
    }

    fn count(&self, priority: Priority) {
        let asked = &self.asked[usize::from(priority.level())];
        if asked.load(Ordering::Relaxed) < ASKED_MAX {
            asked.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether it refuses some requests, or may soon.
    fn is_refusing(&self) -> bool {
        self.level.load(Ordering::Relaxed) != LEVEL_MAX || self.is_overloaded()
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
        // Another thread may have closed it just before.
        if self.began.load(Ordering::Acquire) == began {
            self.began.store(now.as_nanos(), Ordering::Release);
            let wait_min = self.wait_min.swap(u64::MAX, Ordering::AcqRel);
            let asked = self.asked.each_ref().map(|asked| asked.swap(0, Ordering::Relaxed));
            let silence = now.since(Timestamp::from_nanos(began)).as_nanos();
            let intervals = silence / self.interval.as_nanos().max(1);
            // An interval in which nothing waited was none of overload, nor was the time before the first.
            let is_overloaded =
                began != 0 && wait_min != u64::MAX && self.target <= Duration::from_nanos(wait_min);
            self.is_overloaded.store(u32::from(is_overloaded), Ordering::Relaxed);
            let level = f64::from(self.level.load(Ordering::Relaxed)) / f64::from(ONE);
            let recovered = INCREASE * intervals.min(100) as f64;
            let level = next_level(level, asked, is_overloaded, recovered);
            let level = (level * f64::from(ONE)).round() as u32;
            self.level.store(level.min(LEVEL_MAX), Ordering::Relaxed);
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
        (let_in * (1.0 - DECREASE)).max(total * SHARE_MIN)
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
