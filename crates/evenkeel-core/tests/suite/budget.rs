//! Retry budgets against a plain model, and from many threads at once.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use evenkeel_core::{retry::Budget, time::Timestamp};
use proptest::prelude::*;

const THREADS: u64 = 16;
const WINDOW: Duration = Duration::from_secs(16);
/// In milliseconds, far from the least and the greatest time.
const START: u64 = 4_000_000_000_000;

/// A list of everything that happened, in thousandths of a percent of a call.
struct Model {
    share: i64,
    reserve: i64,
    events: Vec<(u64, i64)>,
}

const COST: i64 = 100_000;

impl Model {
    fn new(tenths: u32, floor: u32) -> Self {
        let reserve = i64::from(floor) * WINDOW.as_secs() as i64 * COST;
        Self { share: i64::from(tenths) * 100, reserve, events: Vec::new() }
    }

    fn balance(&self, now: Timestamp) -> i64 {
        let tick = tick(now);
        let recent = self.events.iter().filter(|(at, _)| tick < at + 16);
        self.reserve + recent.map(|(_, amount)| amount).sum::<i64>()
    }

    fn deposit(&mut self, now: Timestamp) {
        self.events.push((tick(now), self.share));
    }

    fn withdraw(&mut self, now: Timestamp) -> bool {
        let is_enough = COST <= self.balance(now);
        if is_enough {
            self.events.push((tick(now), -COST));
        }
        is_enough
    }
}

fn tick(now: Timestamp) -> u64 {
    now.as_nanos() / 1_000_000_000
}

proptest! {
    #[test]
    fn it_does_what_a_list_of_all_events_does(
        tenths in 1_u32..=10_000,
        floor in 0_u32..3,
        steps in prop::collection::vec((0_u64..1_200, any::<bool>()), 1..300),
        silence in prop_oneof![Just(1_000), 0_u64..40_000, Just(1_000_000_000)],
    ) {
        let budget = Budget::share(f64::from(tenths) / 10.0).floor_per_second(floor).window(WINDOW);
        let mut model = Model::new(tenths, floor);
        let mut now = Timestamp::from_nanos(1 << 62);
        for (number, (millis, is_call)) in steps.into_iter().enumerate() {
            let millis = if number % 50 == 49 { silence } else { millis };
            now = now + Duration::from_millis(millis);
            if is_call {
                budget.deposit(now);
                model.deposit(now);
            } else {
                prop_assert_eq!(budget.withdraw(now), model.withdraw(now));
            }
            prop_assert_eq!(budget.balance(now), u64::try_from(model.balance(now) / COST).unwrap_or(0));
        }
    }
}

#[test]
fn sixteen_threads_spend_exactly_what_they_paid_in() {
    const CALLS: u64 = 20_000;
    for (percent, per_mille) in [(20.0, 200), (0.3, 3), (99.9, 999), (700.0, 7_000)] {
        let budget = Budget::share(percent).floor_per_second(1).window(WINDOW);
        let now = Timestamp::from_nanos(1 << 62);
        let (paid_in, spent) = (AtomicU64::new(0), AtomicU64::new(0));
        let start = Barrier::new(THREADS as usize);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..CALLS {
                        paid_in.fetch_add(1, Relaxed);
                        budget.deposit(now);
                        if budget.withdraw(now) {
                            let spent = spent.fetch_add(1, Relaxed) + 1;
                            let allowed = 16 + paid_in.load(Relaxed) * per_mille / 1_000;
                            assert!(spent <= allowed, "overdrawn: {spent} of {allowed}");
                        }
                    }
                });
            }
        });

        let mut spent = spent.into_inner();
        while budget.withdraw(now) {
            spent += 1;
        }
        assert_eq!(spent, 16 + THREADS * CALLS * per_mille / 1_000, "{percent} percent");
    }
}

#[test]
fn sixteen_threads_with_an_advancing_clock_leave_nothing_behind() {
    for step in [1, 250, 1_100, 40_000] {
        let budget = Budget::share(50.0).floor_per_second(10).window(WINDOW);
        let clock = AtomicU64::new(START);
        let spent = AtomicU64::new(0);
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (budget, clock, spent) = (&budget, &clock, &spent);
                scope.spawn(move || {
                    for call in 0..5_000 {
                        let millis = if (call + thread) % 7 == 0 { step } else { 0 };
                        let millis = clock.fetch_add(millis, Relaxed);
                        let now = Timestamp::default() + Duration::from_millis(millis);
                        budget.deposit(now);
                        spent.fetch_add(u64::from(budget.withdraw(now)), Relaxed);
                    }
                });
            }
        });

        let elapsed = clock.load(Relaxed) - START;
        let windows = elapsed / WINDOW.as_millis() as u64 + 2;
        let (spent, calls) = (spent.into_inner(), THREADS * 5_000);
        assert!(spent <= calls / 2 + 160 * windows, "{spent} retries to {calls} calls");
        let end = Timestamp::default() + Duration::from_millis(clock.load(Relaxed)) + WINDOW;
        assert_eq!(budget.balance(end + WINDOW), 160, "the floor alone is left, step {step}");
    }
}

#[test]
fn sixteen_threads_lose_no_token_of_a_throttle() {
    let budget = Budget::throttle(1_000, 0.5);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..20).for_each(|_| budget.record_failure()));
        }
    });
    // 320 of 1,000 are gone, 180 more until half is left.
    assert_eq!(budget.balance(Timestamp::default()), 180);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..20).for_each(|_| budget.record_success()));
        }
    });
    assert_eq!(budget.balance(Timestamp::default()), 340);
}
