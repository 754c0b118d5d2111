//! Every interleaving of threads that share a retry budget.

use std::time::Duration;

use evenkeel_core::{retry::Budget, time::Timestamp};
use loom::thread;

const START: Timestamp = Timestamp::from_nanos(4_000_000_000_000_000_000);

fn later(millis: u64) -> Timestamp {
    START + Duration::from_millis(millis)
}

/// Two slots of half a second, ready to be counted in.
fn budget(percent: f64) -> Budget {
    let budget = Budget::share(percent).floor_per_second(0).window(Duration::from_secs(1));
    assert_eq!(budget.balance(START), 0);
    budget
}

/// Only interleavings in which a thread is stopped up to three times. Forgetting old counts takes
/// many steps, and without a bound the number of interleavings takes hours.
fn model(run: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(run);
}

#[test]
fn two_threads_cannot_spend_the_same_token() {
    loom::model(|| {
        let budget = budget(100.0);
        budget.deposit(START);
        let other = budget.clone();
        let thread = thread::spawn(move || u64::from(other.withdraw(START)));
        let spent = u64::from(budget.withdraw(START)) + thread.join().unwrap();
        assert_eq!(spent, 1);
        assert_eq!(budget.balance(START), 0);
    });
}

#[test]
fn deposits_of_two_threads_are_both_counted() {
    loom::model(|| {
        let budget = budget(100.0);
        let other = budget.clone();
        let thread = thread::spawn(move || other.deposit(START));
        budget.deposit(START);
        thread.join().unwrap();
        assert_eq!(budget.balance(START), 2);
    });
}

#[test]
fn threads_that_disagree_about_the_time_forget_old_counts_once() {
    model(|| {
        let budget = budget(100.0);
        budget.deposit(START);
        let other = budget.clone();
        let thread = thread::spawn(move || other.deposit(later(500)));
        budget.deposit(later(1_000));
        thread.join().unwrap();
        assert!((1..=2).contains(&budget.balance(later(1_000))));
        assert_eq!(budget.balance(later(2_000)), 0);
    });
}

#[test]
fn a_spent_retry_is_given_back_once_when_its_window_is_over() {
    model(|| {
        let budget = Budget::share(0.0).floor_per_second(1).window(Duration::from_secs(1));
        assert!(budget.withdraw(START));
        let other = budget.clone();
        let thread = thread::spawn(move || u64::from(other.withdraw(later(1_000))));
        let spent = u64::from(budget.withdraw(later(1_000)));
        assert_eq!(spent + thread.join().unwrap(), 1);
        assert_eq!(budget.balance(later(2_000)), 1);
    });
}

/// A thread that was stopped in the middle of a step goes on when others have turned the ring more
/// than once. It changes nothing that they use, and no thread waits for it.
#[test]
fn a_step_that_comes_laps_too_late_is_refused() {
    model(|| {
        let budget = budget(100.0);
        let other = budget.clone();
        let thread = thread::spawn(move || other.deposit(later(500)));
        for half_second in 1..=5 {
            budget.deposit(later(500 * half_second));
        }

        // It may be less for a moment: what a thread is about to forget must not be spent. In the
        // end it is what the last two half seconds gave, plus the other thread if that came as
        // late.
        assert!(budget.balance(later(2_500)) <= 3);
        thread.join().unwrap();
        assert!((2..=3).contains(&budget.balance(later(2_500))));
        assert_eq!(budget.balance(later(3_500)), 0);
    });
}
