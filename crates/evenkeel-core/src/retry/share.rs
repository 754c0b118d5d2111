//! Finagle's retry budget: a share of calls over a sliding window, exact under many threads.

use std::time::Duration;

use crate::{
    ring::{MAX_COUNT, Ring, tick_nanos, tick_of},
    sync::{AtomicI64, AtomicU64, Ordering},
    time::Timestamp,
};

/// Deposits and withdrawals of the last ticks, and their balance.
///
/// Each call gives `deposit`, each retry takes `cost`. Both are forgotten after a window of sixteen
/// ticks: withdrawals are then given back, and deposits are taken away. So any window that ends
/// with a retry has at most as many retries as the share of its calls and the floor allow.
///
/// The balance is one word, and a withdrawal is one comparison and exchange, so it cannot be
/// overdrawn. At any moment it is at most what the slots say. For this, a call is counted before it
/// pays in, and a retry pays before it is counted. When counts are forgotten, calls are taken from
/// the balance before, and retries are given back after.
#[derive(Debug)]
pub(super) struct Share {
    percent: f64,
    floor: u32,
    window: Duration,
    deposit: i64,
    cost: i64,
    tick_nanos: u64,
    /// The latest tick up to which old counts are forgotten.
    head: AtomicU64,
    /// The reserve, plus the deposits and minus the withdrawals in the slots.
    balance: AtomicI64,
    calls: Ring,
    retries: Ring,
}

/// The first 32 calls of a tick read the time, and one in 32 after them.
const CALLS_UNTOLD: u64 = 32;

impl Share {
    pub(super) fn new(percent: f64, floor: u32, window: Duration) -> Self {
        let is_share = percent == 0.0 || (0.1..=1_000.0).contains(&percent);
        assert!(is_share, "a share of {percent} percent");
        assert!(floor <= 1_000_000, "a floor of {floor} retries a second");
        let is_window = (Duration::from_secs(1)..=Duration::from_secs(60)).contains(&window);
        assert!(is_window, "a window of {window:?}");
        // A retry costs a million, and a call gives a million times its share. These are whole
        // numbers, so that only the fifth place of the percentage is rounded.
        let deposit = (percent * 10_000.0).round() as i64;
        let common = common_divisor(deposit, 1_000_000);
        let (deposit, cost) = (deposit / common, 1_000_000 / common);
        let window_nanos = window.as_nanos();
        let reserve = u128::from(floor) * window_nanos * cost as u128 / 1_000_000_000;
        Self {
            percent,
            floor,
            window,
            deposit,
            cost,
            tick_nanos: tick_nanos(window),
            head: AtomicU64::new(0),
            balance: AtomicI64::new(reserve as i64),
            calls: Ring::new(),
            retries: Ring::new(),
        }
    }

    pub(super) const fn percent(&self) -> f64 {
        self.percent
    }

    pub(super) const fn floor(&self) -> u32 {
        self.floor
    }

    pub(super) const fn window(&self) -> Duration {
        self.window
    }

    /// Forgets counts that are older than a window at `now`. Returns the tick to count in.
    #[inline]
    fn tell(&self, now: Timestamp) -> u64 {
        let tick = tick_of(now, self.tick_nanos);
        let head = self.head.load(Ordering::Acquire);
        if tick <= head { head } else { self.advance(tick) }
    }

    /// Each thread forgets all that is due before it moves `head`: no thread waits for another, and
    /// none counts before the old counts are forgotten.
    #[cold]
    fn advance(&self, tick: u64) -> u64 {
        let change = |amount: i64| _ = self.balance.fetch_add(amount, Ordering::AcqRel);
        self.calls.forget(tick, |calls| change(-calls * self.deposit), |_| {});
        self.retries.forget(tick, |_| {}, |retries| change(retries * self.cost));
        self.head.fetch_max(tick, Ordering::AcqRel).max(tick)
    }

    pub(super) fn deposit(&self, now: Timestamp) {
        let tick = self.tell(now);
        if self.calls.add(1, tick) {
            self.balance.fetch_add(self.deposit, Ordering::AcqRel);
        }
    }

    /// The last known time, or `None` if it should be read again.
    #[inline]
    pub(super) fn lately(&self) -> Option<Timestamp> {
        let head = self.head.load(Ordering::Acquire);
        let calls = self.calls.count(head);
        // Few calls may be spread over more than a window: each has to count when it was made. A
        // full slot no longer changes, and would never ask again.
        let is_known =
            (CALLS_UNTOLD..MAX_COUNT).contains(&calls) && !calls.is_multiple_of(CALLS_UNTOLD);
        is_known.then(|| Timestamp::from_nanos(head * self.tick_nanos))
    }

    pub(super) fn withdraw(&self, now: Timestamp) -> bool {
        let tick = self.tell(now);
        let take = |balance: i64| (self.cost <= balance).then(|| balance - self.cost);
        if self.balance.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_err() {
            return false;
        }
        let is_counted = self.retries.add(1, tick);
        if !is_counted {
            self.balance.fetch_add(self.cost, Ordering::AcqRel);
        }
        is_counted
    }

    pub(super) fn balance(&self, now: Timestamp) -> u64 {
        self.tell(now);
        u64::try_from(self.balance.load(Ordering::Acquire) / self.cost).unwrap_or(0)
    }
}

const fn common_divisor(mut a: i64, mut b: i64) -> i64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos((4_000_000_000_000 + millis) * 1_000_000)
    }

    fn share(percent: f64) -> Share {
        Share::new(percent, 0, Duration::from_secs(16))
    }

    /// How many retries are paid for if each of `calls` simultaneous calls takes as many as it can.
    fn retries(share: &Share, calls: u64, now: Timestamp) -> u64 {
        let mut retries = 0;
        for _ in 0..calls {
            share.deposit(now);
            while share.withdraw(now) {
                retries += 1;
            }
        }
        retries
    }

    #[test]
    fn ten_thousand_calls_may_retry_as_often_as_with_finagle() {
        // Window in seconds, floor, share, retries: from Finagle's RetryBudgetTest.
        for (window, floor, percent, expected) in [
            (60, 0, 10.0, 1_000),
            (60, 0, 50.0, 5_000),
            (60, 0, 25.0, 2_500),
            (60, 0, 75.0, 7_500),
            (60, 0, 99.0, 9_900),
            (60, 0, 1.0, 100),
            (1, 10, 10.0, 1_010),
            (2, 5, 50.0, 5_010),
        ] {
            let share = Share::new(percent, floor, Duration::from_secs(window));
            assert_eq!(retries(&share, 10_000, at(0)), expected, "{percent} percent");
        }
    }

    #[test]
    fn every_percentage_gives_what_it_says() {
        for tenths in 1..=10_000_u32 {
            let share = share(f64::from(tenths) / 10.0);
            for _ in 0..1_000 {
                share.deposit(at(0));
            }
            assert_eq!(share.balance(at(0)), u64::from(tenths), "{tenths} tenths of a percent");
        }
    }

    #[test]
    fn nothing_is_rounded_on_the_way_to_a_million_calls() {
        for (percent, expected) in [(33.3333, 333_333), (0.1, 1_000), (99.9, 999_000)] {
            let share = share(percent);
            for _ in 0..1_000_000 {
                share.deposit(at(0));
            }
            assert_eq!(share.balance(at(0)), expected);
        }
    }

    #[test]
    fn low_traffic_gets_its_floor_and_gets_it_again() {
        let share = Share::new(20.0, 2, Duration::from_secs(16));
        assert_eq!(retries(&share, 1, at(0)), 32);
        assert_eq!(retries(&share, 1, at(15_999)), 0);
        assert_eq!(retries(&share, 1, at(16_000)), 32);
    }

    #[test]
    fn a_call_is_forgotten_after_a_window_even_without_calls_in_between() {
        let share = share(100.0);
        share.deposit(at(0));
        assert_eq!(share.balance(at(15_999)), 1);
        assert_eq!(share.balance(at(16_000)), 0);

        share.deposit(at(16_000));
        let later = at(1_000_000_000_000);
        assert_eq!(share.balance(later), 0);
        assert_eq!(retries(&share, 5, later), 5);
    }

    #[test]
    fn a_time_that_was_read_before_another_threads_counts_as_now() {
        let share = share(100.0);
        share.deposit(at(50_000));
        share.deposit(at(0));
        assert_eq!(share.balance(at(65_000)), 2);
        assert_eq!(share.balance(at(66_000)), 0);
    }

    #[test]
    fn of_many_calls_one_in_thirty_two_asks_for_the_time() {
        let share = share(100.0);
        let mut asked = 0;
        for _ in 0..352 {
            let now = share.lately().unwrap_or_else(|| {
                asked += 1;
                at(7)
            });
            share.deposit(now);
        }
        assert_eq!(asked, 32 + 10);
        assert_eq!(share.balance(at(7)), 352);
    }

    #[test]
    fn a_tick_whose_counter_is_full_asks_for_the_time_with_each_call() {
        let share = share(100.0);
        share.deposit(at(0));
        let tick = tick_of(at(0), share.tick_nanos);
        assert!(share.calls.add(MAX_COUNT - 1, tick));
        share.balance.fetch_add((MAX_COUNT - 1) as i64 * share.deposit, Ordering::AcqRel);

        assert_eq!(share.lately(), None);
        share.deposit(share.lately().unwrap_or(at(20_000)));

        assert_eq!(share.balance(at(20_000)), 1, "the next tick counts again");
    }

    #[test]
    fn rare_calls_count_at_the_time_at_which_they_are_made() {
        let share = Share::new(50.0, 0, Duration::from_secs(16));
        // One a second, for a minute.
        for second in 0..60 {
            let now = at(second * 1_000);
            share.deposit(share.lately().unwrap_or(now));
        }
        assert_eq!(share.balance(at(59_000)), 8, "half of the last sixteen");
    }
}
