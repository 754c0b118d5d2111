//! The breaker against its promises, at each of its boundaries, and against a plain model.

use std::collections::{HashMap, VecDeque};

use super::*;
use crate::health::Window;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_nanos((1 << 62) + millis * 1_000_000)
}

fn rules() -> BreakerRules {
    BreakerRules {
        consecutive_failures: Some(3),
        failure_rate: None,
        jitter: 0.0,
        ..BreakerRules::default()
    }
}

fn breaker(rules: BreakerRules) -> Breaker {
    Breaker::new(rules, Rng::with_seed(1))
}

fn record(breaker: &Breaker, outcome: Outcome) -> bool {
    breaker.record(outcome, Duration::ZERO, || at(0))
}

fn fail(breaker: &Breaker, times: usize) {
    for _ in 0..times {
        record(breaker, Outcome::Failure);
    }
}

fn trial(breaker: &Breaker, now: Timestamp) -> Trial {
    match breaker.admit(now) {
        BreakerAdmission::Trial(trial) => trial,
        other => panic!("no trial but {other:?}"),
    }
}

fn refusal(breaker: &Breaker, now: Timestamp) -> Option<Duration> {
    match breaker.admit(now) {
        BreakerAdmission::Refused(after) => after,
        other => panic!("no refusal but {other:?}"),
    }
}

fn end(breaker: &Breaker, trial: Trial, outcome: Outcome, now: Timestamp) -> bool {
    breaker.finish_trial(trial, outcome, Duration::ZERO, now)
}

#[test]
fn opens_with_the_last_allowed_failure_and_not_before() {
    let breaker = breaker(rules());
    assert!(!record(&breaker, Outcome::Failure));
    assert!(!record(&breaker, Outcome::Failure));
    assert_eq!(breaker.state(), State::Closed);

    assert!(record(&breaker, Outcome::Failure));

    assert_eq!(breaker.state(), State::Open);
    assert!(!record(&breaker, Outcome::Failure), "it opens once");
}

#[test]
fn only_a_success_resets_the_count_of_consecutive_failures() {
    let breaker = breaker(rules());
    fail(&breaker, 2);
    record(&breaker, Outcome::Success);
    fail(&breaker, 2);
    record(&breaker, Outcome::Ignored);
    record(&breaker, Outcome::Throttled(None));
    assert_eq!(breaker.state(), State::Closed);

    fail(&breaker, 1);

    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn a_rate_counts_from_the_minimum_number_of_calls_on() {
    let rules = BreakerRules {
        consecutive_failures: None,
        failure_rate: Some(0.5),
        window: Window::Calls(10),
        min_calls: 4,
        ..rules()
    };
    let early = breaker(rules.clone());
    fail(&early, 3);
    assert_eq!(early.state(), State::Closed);
    record(&early, Outcome::Success);
    assert_eq!(early.state(), State::Open, "a success may complete the number");

    let below = breaker(rules.clone());
    for _ in 0..30 {
        record(&below, Outcome::Success);
        record(&below, Outcome::Success);
        record(&below, Outcome::Failure);
        assert_eq!(below.state(), State::Closed, "a third is below one half");
    }

    let never = breaker(BreakerRules { min_calls: 1_000, ..rules });
    fail(&never, 9);
    assert_eq!(never.state(), State::Closed);
    fail(&never, 1);
    assert_eq!(never.state(), State::Open, "no more is asked than the window holds");
}

#[test]
fn throttled_calls_count_for_the_rate_and_ignored_ones_do_not_count() {
    let rules = BreakerRules {
        consecutive_failures: Some(1),
        failure_rate: Some(1.0),
        window: Window::Calls(2),
        min_calls: 2,
        ..rules()
    };
    let breaker = breaker(rules);
    for _ in 0..10 {
        record(&breaker, Outcome::Ignored);
    }
    record(&breaker, Outcome::Throttled(Some(Duration::from_secs(1))));
    assert_eq!(breaker.state(), State::Closed);
    record(&breaker, Outcome::Throttled(None));
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn a_call_is_slow_from_the_limit_on() {
    let limit = Duration::from_millis(100);
    let rules = BreakerRules {
        consecutive_failures: None,
        slow_calls: Some((limit, 1.0)),
        window: Window::Calls(2),
        min_calls: 2,
        ..rules()
    };
    let breaker = breaker(rules);
    let call = |latency| breaker.record(Outcome::Success, latency, || at(0));
    call(limit);
    call(limit - Duration::from_nanos(1));
    assert_eq!(breaker.state(), State::Closed);
    call(limit);
    assert_eq!(breaker.state(), State::Closed);
    call(limit);
    assert_eq!(breaker.state(), State::Open);

    let trial = trial(&breaker, at(60_000));
    breaker.finish_trial(trial, Outcome::Success, limit, at(60_000));
    assert_eq!(breaker.state(), State::Open, "a slow trial fails");
}

#[test]
fn a_time_window_forgets_failures() {
    let rules = BreakerRules {
        consecutive_failures: None,
        failure_rate: Some(1.0),
        window: Window::Time(Duration::from_secs(10)),
        min_calls: 3,
        ..rules()
    };
    let breaker = breaker(rules);
    for second in [0, 11, 22, 33] {
        breaker.record(Outcome::Failure, Duration::ZERO, || at(second * 1_000));
        assert_eq!(breaker.state(), State::Closed);
    }
    breaker.record(Outcome::Failure, Duration::ZERO, || at(34_000));
    breaker.record(Outcome::Failure, Duration::ZERO, || at(35_000));
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn an_open_breaker_refuses_until_its_time_and_says_how_long_that_is() {
    let breaker = breaker(rules());
    fail(&breaker, 3);
    let end = at(1_000);
    let before = Timestamp::from_nanos(end.as_nanos() - 1);

    assert_eq!(refusal(&breaker, at(400)), Some(Duration::from_millis(600)));
    assert_eq!(refusal(&breaker, before), Some(Duration::from_nanos(1)));
    assert!(!breaker.half_open(before));
    assert_eq!(breaker.opens_until(), Some(end));

    assert!(breaker.half_open(end));
    assert_eq!(breaker.state(), State::HalfOpen);
    assert_eq!(breaker.access(), Access::Guarded);
    assert!(!breaker.half_open(end), "once");
}

#[test]
fn exactly_the_permitted_calls_are_let_in_and_all_of_them_must_succeed() {
    let breaker = breaker(BreakerRules { trial_calls: 3, ..rules() });
    fail(&breaker, 3);
    let now = at(1_000);
    let trials: Vec<_> = (0..3).map(|_| trial(&breaker, now)).collect();
    assert_eq!(refusal(&breaker, now), None);
    assert_eq!(breaker.access(), Access::Closed);

    let mut changed = trials.into_iter().map(|trial| end(&breaker, trial, Outcome::Success, now));

    assert_eq!(changed.next(), Some(false));
    assert_eq!(refusal(&breaker, now), None, "a success does not make room for another");
    assert_eq!(changed.next(), Some(false));
    assert_eq!(changed.next(), Some(true));
    assert_eq!(breaker.state(), State::Closed);
    fail(&breaker, 2);
    assert_eq!(breaker.state(), State::Closed, "it starts from nothing");
}

#[test]
fn a_cancelled_or_ignored_trial_gives_its_place_back() {
    let breaker = breaker(rules());
    fail(&breaker, 3);
    let now = at(1_000);
    let first = trial(&breaker, now);
    breaker.cancel_trial(first);
    assert_eq!(breaker.access(), Access::Guarded);
    let second = trial(&breaker, now);
    assert!(!end(&breaker, second, Outcome::Ignored, now));

    let third = trial(&breaker, now);
    assert_eq!(refusal(&breaker, now), None);
    assert!(end(&breaker, third, Outcome::Success, now));
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn open_times_double_up_to_the_maximum_and_start_over_after_a_success() {
    let breaker = breaker(rules());
    fail(&breaker, 3);
    let mut now = at(0);
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        let until = breaker.opens_until().unwrap();
        assert_eq!(until.since(now), Duration::from_secs(seconds));
        now = until;
        assert!(end(&breaker, trial(&breaker, now), Outcome::Throttled(None), now));
    }
    now = breaker.opens_until().unwrap();
    end(&breaker, trial(&breaker, now), Outcome::Success, now);

    for _ in 0..3 {
        breaker.record(Outcome::Failure, Duration::ZERO, || now);
    }

    assert_eq!(breaker.opens_until().unwrap().since(now), Duration::from_secs(1));
}

#[test]
fn open_times_are_jittered_within_their_share_and_differ_between_breakers() {
    let rules = BreakerRules { jitter: 0.5, ..rules() };
    let times: Vec<_> = (0..100)
        .map(|seed| {
            let breaker = Breaker::new(rules.clone(), Rng::with_seed(seed));
            fail(&breaker, 3);
            breaker.opens_until().unwrap().since(at(0))
        })
        .collect();
    let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!((500..550).contains(&least.as_millis()), "{least:?}");
    assert!((950..=1_000).contains(&most.as_millis()), "{most:?}");
}

#[test]
fn a_late_result_of_an_earlier_trial_does_not_count() {
    let breaker = breaker(BreakerRules { trial_calls: 2, ..rules() });
    fail(&breaker, 3);
    let (late, fails) = (trial(&breaker, at(1_000)), trial(&breaker, at(1_000)));
    end(&breaker, fails, Outcome::Failure, at(1_000));
    let (first, second) = (trial(&breaker, at(3_000)), trial(&breaker, at(3_000)));

    assert!(!end(&breaker, late, Outcome::Failure, at(3_000)));

    assert_eq!(refusal(&breaker, at(3_000)), None, "it has no place here to give back");
    end(&breaker, first, Outcome::Success, at(3_000));
    assert!(end(&breaker, second, Outcome::Success, at(3_000)));
}

#[test]
fn a_breaker_that_is_held_open_refuses_and_one_that_is_held_closed_counts_nothing() {
    let breaker = breaker(rules());
    breaker.hold_open();
    assert_eq!(refusal(&breaker, at(1_000_000)), None);
    assert!(!breaker.half_open(at(1_000_000)));

    breaker.hold_closed();
    fail(&breaker, 100);
    assert!(matches!(breaker.admit(at(0)), BreakerAdmission::Free));
    assert_eq!(breaker.state(), State::HeldClosed);

    breaker.reset();
    fail(&breaker, 2);
    assert_eq!(breaker.state(), State::Closed);
    fail(&breaker, 1);
    assert_eq!(breaker.state(), State::Open);
    breaker.reset();
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn one_of_sixteen_threads_opens_it_and_as_many_as_permitted_try_it() {
    for seed in 0..200 {
        let rules = BreakerRules { consecutive_failures: Some(16), trial_calls: 5, ..rules() };
        let breaker = Breaker::new(rules, Rng::with_seed(seed));
        let count = |work: &(dyn Fn() -> bool + Sync)| {
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..16).map(|_| scope.spawn(work)).collect();
                threads
                    .into_iter()
                    .filter(|_| true)
                    .map(|t| t.join().unwrap())
                    .filter(|t| *t)
                    .count()
            })
        };
        assert_eq!(count(&|| record(&breaker, Outcome::Failure)), 1);
        assert_eq!(breaker.state(), State::Open);
        assert_eq!(count(&|| matches!(breaker.admit(at(1_000)), BreakerAdmission::Trial(_))), 5);
    }
}

/// A plain model of the breaker.
struct Model {
    rules: BreakerRules,
    state: State,
    row: u32,
    calls: VecDeque<(bool, bool)>,
    until: u64,
    openings: u32,
    /// Trials of this round that are under way, by number.
    trials: Vec<u64>,
    succeeded: u32,
}

impl Model {
    fn record(&mut self, outcome: Outcome, is_slow: bool, now: u64) {
        if self.state != State::Closed || outcome == Outcome::Ignored {
            return;
        }
        let is_failed = outcome != Outcome::Success;
        match outcome {
            Outcome::Success => self.row = 0,
            Outcome::Failure => self.row += 1,
            _ => {}
        }
        self.calls.push_back((is_failed, is_slow));
        let Window::Calls(size) = self.rules.window else { panic!("counts calls") };
        if self.calls.len() > size as usize {
            self.calls.pop_front();
        }
        let share = |is: &dyn Fn(&(bool, bool)) -> bool| {
            self.calls.iter().filter(|call| is(call)).count() as f64 / self.calls.len() as f64
        };
        let is_counted = self.rules.min_calls as usize <= self.calls.len();
        let is_over_rate = is_counted
            && (self.rules.failure_rate.expect("set") <= share(&|call| call.0)
                || self.rules.slow_calls.expect("set").1 <= share(&|call| call.1));
        let is_over_row = outcome == Outcome::Failure
            && self.rules.consecutive_failures.expect("set") <= self.row;
        if is_over_row || is_over_rate {
            self.open(now);
        }
    }

    fn open(&mut self, now: u64) {
        self.state = State::Open;
        self.until = now + (1_000 << self.openings.min(10)).min(60_000);
        self.openings += 1;
    }

    /// Whether a call is let in freely, as a trial, or not at all.
    fn admit(&mut self, number: u64, now: u64) -> Option<bool> {
        if self.state == State::Open && self.until <= now {
            self.state = State::HalfOpen;
            (self.trials, self.succeeded) = (Vec::new(), 0);
        }
        match self.state {
            State::Closed => Some(false),
            State::HalfOpen
                if self.trials.len() as u32 + self.succeeded < self.rules.trial_calls =>
            {
                self.trials.push(number);
                Some(true)
            }
            _ => None,
        }
    }

    fn end(&mut self, number: u64, outcome: Option<Outcome>, is_slow: bool, now: u64) {
        let Some(index) = self.trials.iter().position(|trial| *trial == number) else { return };
        if self.state != State::HalfOpen {
            return;
        }
        self.trials.remove(index);
        match outcome {
            None | Some(Outcome::Ignored) => {}
            Some(Outcome::Success) if !is_slow => {
                self.succeeded += 1;
                if self.succeeded == self.rules.trial_calls {
                    self.state = State::Closed;
                    (self.row, self.openings) = (0, 0);
                    self.calls.clear();
                }
            }
            _ => self.open(now),
        }
    }
}

#[test]
fn a_trial_without_an_answer_opens_it_again_when_its_time_is_over() {
    let breaker = breaker(rules());
    fail(&breaker, 3);
    assert_eq!(breaker.due(), Some(at(1_000)));
    assert!(breaker.look_after(at(1_000)));
    assert_eq!(breaker.due(), None, "nothing is under way");
    assert!(!breaker.look_after(at(100_000)));

    let held = trial(&breaker, at(100_000));
    assert_eq!(breaker.due(), Some(at(110_000)), "ten seconds");
    assert_eq!(refusal(&breaker, at(109_999)), None);
    assert!(breaker.look_after(at(110_000)));
    assert_eq!((breaker.state(), breaker.due()), (State::Open, Some(at(112_000))));

    assert!(!end(&breaker, held, Outcome::Success, at(110_001)), "too late");
    let _held = trial(&breaker, at(112_000));
    assert_eq!(refusal(&breaker, at(122_000)), Some(Duration::from_secs(4)), "told by a call");
}

#[test]
fn trials_that_hang_one_after_another_open_it_again_when_the_time_of_the_first_is_over() {
    let breaker = breaker(rules());
    fail(&breaker, 3);
    breaker.look_after(at(1_000));
    for begins in [1_000, 5_000] {
        let impatient = trial(&breaker, at(begins));
        breaker.cancel_trial(impatient);
    }
    let _held = trial(&breaker, at(9_000));

    assert!(!breaker.look_after(at(10_999)));
    assert!(breaker.look_after(at(11_000)));

    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn an_answer_or_a_pause_gives_later_trials_their_full_time() {
    let breaker = breaker(BreakerRules { trial_calls: 2, ..rules() });
    fail(&breaker, 3);
    breaker.look_after(at(1_000));
    let (answered, held) = (trial(&breaker, at(1_000)), trial(&breaker, at(3_000)));
    assert_eq!(breaker.due(), Some(at(11_000)), "the first of the row counts");

    end(&breaker, answered, Outcome::Ignored, at(4_000));
    assert_eq!(breaker.due(), Some(at(14_000)));
    breaker.cancel_trial(held);
    assert_eq!(breaker.due(), None);

    let _after_a_pause = trial(&breaker, at(60_000));
    assert_eq!(breaker.due(), Some(at(70_000)));
    assert_eq!(breaker.state(), State::HalfOpen);
}

#[test]
fn an_untimed_trial_takes_no_place_and_its_outcome_still_counts() {
    let breaker = breaker(rules());
    fail(&breaker, 3);
    breaker.look_after(at(1_000));
    let mut poll = trial(&breaker, at(1_000));
    breaker.give_place(&mut poll);
    assert_eq!((breaker.access(), breaker.due()), (Access::Guarded, None));

    assert!(end(&breaker, poll, Outcome::Success, at(100_000)));

    assert_eq!(breaker.state(), State::Closed);
    fail(&breaker, 3);
    breaker.look_after(at(2_000));
    let [good, bad] = [(); 2].map(|()| {
        let mut poll = trial(&breaker, at(2_000));
        breaker.give_place(&mut poll);
        poll
    });
    let held = trial(&breaker, at(2_000));
    assert!(!end(&breaker, good, Outcome::Success, at(2_001)), "all places are taken");
    assert!(end(&breaker, bad, Outcome::Failure, at(2_002)));
    assert_eq!(breaker.state(), State::Open);
    assert!(!end(&breaker, held, Outcome::Success, at(2_003)));
}

#[test]
fn a_failure_that_is_reported_while_it_is_half_open_opens_it_again() {
    let breaker = breaker(BreakerRules { trial_calls: 2, ..rules() });
    fail(&breaker, 3);
    breaker.look_after(at(1_000));
    let judged = trial(&breaker, at(1_000));
    end(&breaker, judged, Outcome::Success, at(1_001));
    assert!(!record(&breaker, Outcome::Success));
    assert!(!record(&breaker, Outcome::Ignored));
    assert_eq!(breaker.state(), State::HalfOpen);

    assert!(breaker.record(Outcome::Failure, Duration::ZERO, || at(1_002)), "in its body");

    assert_eq!((breaker.state(), breaker.due()), (State::Open, Some(at(3_002))));
}

#[test]
fn it_does_what_a_plain_model_does() {
    let slow = Duration::from_millis(10);
    for seed in 0..300 {
        let mut rng = Rng::with_seed(seed);
        let rules = BreakerRules {
            consecutive_failures: Some(1 + rng.below(5) as u32),
            failure_rate: Some([0.25, 0.5, 1.0][rng.below(3)]),
            slow_calls: Some((slow, [0.25, 0.75][rng.below(2)])),
            window: Window::Calls(8),
            min_calls: 1 + rng.below(8) as u32,
            trial_calls: 1 + rng.below(3) as u32,
            jitter: 0.0,
            ..BreakerRules::default()
        };
        let breaker = breaker(rules.clone());
        let mut model = Model {
            rules,
            state: State::Closed,
            row: 0,
            calls: VecDeque::new(),
            until: 0,
            openings: 0,
            trials: Vec::new(),
            succeeded: 0,
        };
        let mut trials: HashMap<u64, Trial> = HashMap::new();
        let mut now = 0;
        for number in 0..400 {
            now += rng.below_u64(700);
            let outcome = match rng.below(8) {
                0..=2 => Outcome::Success,
                3..=5 => Outcome::Failure,
                6 => Outcome::Throttled(None),
                _ => Outcome::Ignored,
            };
            let is_slow = rng.below(6) == 0;
            let latency = if is_slow { slow } else { slow / 2 };
            let due = trials.keys().min().copied().filter(|_| rng.below(2) == 0);
            if let Some(due) = due {
                let trial = trials.remove(&due).unwrap();
                if rng.below(4) == 0 {
                    breaker.cancel_trial(trial);
                    model.end(due, None, false, now);
                } else {
                    breaker.finish_trial(trial, outcome, latency, at(now));
                    model.end(due, Some(outcome), is_slow, now);
                }
            } else {
                let expected = model.admit(number, now);
                match breaker.admit(at(now)) {
                    BreakerAdmission::Free => {
                        assert_eq!(expected, Some(false), "seed {seed}, call {number}");
                        breaker.record(outcome, latency, || at(now));
                        model.record(outcome, is_slow, now);
                    }
                    BreakerAdmission::Trial(trial) => {
                        assert_eq!(expected, Some(true), "seed {seed}, call {number}");
                        trials.insert(number, trial);
                    }
                    BreakerAdmission::Refused(_) => {
                        assert_eq!(expected, None, "seed {seed}, call {number}");
                    }
                }
            }
            assert_eq!(breaker.state(), model.state, "seed {seed}, call {number}");
        }
    }
}
