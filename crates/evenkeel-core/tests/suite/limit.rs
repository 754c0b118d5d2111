//! Limits, throttle and shedding: against a plain model of an endpoint, vectors, and many threads.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    sync::{
        Arc, Barrier,
        atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use evenkeel_core::{
    limit::{
        AdaptiveThrottle, Aimd, Fixed, Gradient2, Limit, Permits, Priority, Sample, Shed, Vegas,
    },
    rng::Rng,
    time::Timestamp,
};

const THREADS: usize = 16;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Far from the least and the greatest time.
fn at(time: Duration) -> Timestamp {
    Timestamp::from_nanos(1 << 62) + time
}

/// An endpoint that works on `workers` requests at once, each for `service` on average. It refuses
/// requests that find no place in its queue.
struct Endpoint {
    workers: usize,
    service: Duration,
    max_queue: usize,
    busy: usize,
    queue: VecDeque<Duration>,
}

/// What happened in a stretch of time.
#[derive(Debug, Default)]
struct Stretch {
    done: u32,
    limit_sum: f64,
    asked: u32,
    max_limit: u32,
    latency_sum: f64,
}

impl Stretch {
    fn limit(&self) -> f64 {
        self.limit_sum / f64::from(self.asked)
    }

    fn latency(&self) -> f64 {
        self.latency_sum / f64::from(self.done)
    }
}

/// Requests arrive at random, `rate` a second, at an endpoint behind a limit.
struct Simulation {
    endpoint: Endpoint,
    permits: Permits,
    rng: Rng,
    now: Duration,
    /// When a request ends, and when it began.
    ends: BinaryHeap<Reverse<(Duration, Duration)>>,
}

impl Simulation {
    fn new(limit: impl Limit, workers: usize, seed: u64) -> Self {
        let queue = VecDeque::new();
        let endpoint = Endpoint { workers, service: ms(50), max_queue: 10_000, busy: 0, queue };
        let permits = Permits::new(limit);
        let rng = Rng::with_seed(seed);
        Self { endpoint, permits, rng, now: Duration::ZERO, ends: BinaryHeap::new() }
    }

    fn run(&mut self, time: Duration, rate: f64) -> Stretch {
        let until = self.now + time;
        let mut stretch = Stretch::default();
        let mut arrival = self.now + self.gap(rate);
        loop {
            let end = self.ends.peek().map(|Reverse((end, _))| *end);
            match end.filter(|end| *end <= arrival) {
                Some(end) if end <= until => self.end(&mut stretch),
                _ if until < arrival => break,
                _ => {
                    self.now = arrival;
                    self.arrive(&mut stretch);
                    arrival = self.now + self.gap(rate);
                }
            }
        }
        self.now = until;
        stretch
    }

    fn gap(&mut self, rate: f64) -> Duration {
        Duration::from_secs_f64(-(1.0 - self.rng.unit()).ln() / rate)
    }

    fn arrive(&mut self, stretch: &mut Stretch) {
        let limit = self.permits.limit().limit();
        stretch.asked += 1;
        stretch.limit_sum += f64::from(limit);
        stretch.max_limit = stretch.max_limit.max(limit);
        if !self.permits.acquire() {
            return;
        }
        if self.endpoint.busy < self.endpoint.workers {
            self.begin(self.now);
        } else if self.endpoint.queue.len() < self.endpoint.max_queue {
            self.endpoint.queue.push_back(self.now);
        } else {
            self.sample(Duration::from_micros(100), true);
        }
    }

    fn begin(&mut self, arrived: Duration) {
        self.endpoint.busy += 1;
        let time = self.endpoint.service.mul_f64(0.5 + self.rng.unit());
        self.ends.push(Reverse((self.now + time, arrived)));
    }

    fn end(&mut self, stretch: &mut Stretch) {
        let Reverse((end, arrived)) = self.ends.pop().expect("peeked");
        self.now = end;
        self.endpoint.busy -= 1;
        stretch.done += 1;
        stretch.latency_sum += (end - arrived).as_secs_f64();
        self.sample(end - arrived, false);
        if self.endpoint.busy < self.endpoint.workers
            && let Some(next) = self.endpoint.queue.pop_front()
        {
            self.begin(next);
        }
    }

    fn sample(&self, latency: Duration, is_dropped: bool) {
        let in_flight = self.permits.in_flight();
        self.permits.limit().sample(Sample { latency, in_flight, is_dropped }, at(self.now));
        self.permits.release();
    }
}

/// What an endpoint of 50 workers can do in a second, and what it is asked to do.
const CAPACITY: f64 = 1_000.0;
const RATE: f64 = 1_500.0;
const SEEDS: u64 = 5;

const HALF_A_MINUTE: Duration = Duration::from_secs(30);

fn simulation(limit: Box<dyn Limit>, seed: u64) -> Simulation {
    let mut simulation = Simulation::new(Fixed::new(1), 50, seed);
    simulation.permits = Permits::boxed(limit);
    simulation
}

fn share_done(stretch: &Stretch, capacity: f64) -> f64 {
    f64::from(stretch.done) / (HALF_A_MINUTE.as_secs_f64() * capacity)
}

/// Where a limit settles over an endpoint of 50 workers that gets half as much again as it can do:
/// within `bounds` after half a minute, and after five more.
fn settles(make: fn() -> Box<dyn Limit>, bounds: std::ops::RangeInclusive<f64>) {
    for seed in 0..SEEDS {
        let mut simulation = simulation(make(), seed);
        simulation.run(HALF_A_MINUTE, RATE);

        let settled = simulation.run(HALF_A_MINUTE, RATE);
        assert!(bounds.contains(&settled.limit()), "seed {seed}: {}", settled.limit());
        let share = share_done(&settled, CAPACITY);
        assert!(0.97 < share, "seed {seed}: {share} of what it can do");

        simulation.run(10 * HALF_A_MINUTE, RATE);
        let later = simulation.run(HALF_A_MINUTE, RATE);
        assert!(bounds.contains(&later.limit()), "seed {seed}, later: {}", later.limit());
    }
}

#[test]
fn vegas_settles_just_above_what_the_endpoint_works_on_at_once_and_does_not_drift() {
    settles(|| Box::new(Vegas::new()), 50.0..=65.0);
}

#[test]
fn gradient2_settles_below_twice_what_the_endpoint_works_on_at_once_and_does_not_drift() {
    settles(|| Box::new(Gradient2::new()), 50.0..=100.0);
}

#[test]
fn aimd_settles_where_the_endpoint_begins_to_refuse() {
    for seed in 0..SEEDS {
        let mut simulation = simulation(Box::new(Aimd::new()), seed);
        simulation.endpoint.max_queue = 20;
        simulation.run(HALF_A_MINUTE, RATE);

        let settled = simulation.run(HALF_A_MINUTE, RATE);

        assert!((60.0..=80.0).contains(&settled.limit()), "seed {seed}: {}", settled.limit());
        let share = share_done(&settled, CAPACITY);
        assert!(0.97 < share, "seed {seed}: {share} of what it can do");
    }
}

#[test]
fn a_limit_follows_an_endpoint_that_becomes_smaller_slower_and_well_again() {
    for make in
        [(|| Box::new(Vegas::new())) as fn() -> Box<dyn Limit>, || Box::new(Gradient2::new())]
    {
        for seed in 0..SEEDS {
            let mut simulation = simulation(make(), seed);
            simulation.run(HALF_A_MINUTE, RATE);

            simulation.endpoint.workers = 20;
            simulation.run(HALF_A_MINUTE, RATE);
            let small = simulation.run(HALF_A_MINUTE, RATE);
            assert!((20.0..=44.0).contains(&small.limit()), "seed {seed}: {}", small.limit());

            simulation.endpoint.workers = 50;
            simulation.endpoint.service = ms(150);
            simulation.run(HALF_A_MINUTE, RATE);
            let slow = simulation.run(HALF_A_MINUTE, RATE);
            assert!((47.0..=105.0).contains(&slow.limit()), "seed {seed}: {}", slow.limit());
            assert!(0.95 < share_done(&slow, CAPACITY / 3.0), "seed {seed}: {slow:?}");

            simulation.endpoint.service = ms(50);
            simulation.run(HALF_A_MINUTE, RATE);
            let well = simulation.run(HALF_A_MINUTE, RATE);
            assert!((50.0..=100.0).contains(&well.limit()), "seed {seed}: {}", well.limit());
            assert!(well.latency() < 0.11, "seed {seed}: {}", well.latency());
        }
    }
}

#[test]
fn a_limit_that_is_not_used_does_not_grow() {
    for make in [
        (|| Box::new(Vegas::new())) as fn() -> Box<dyn Limit>,
        || Box::new(Gradient2::new()),
        || Box::new(Aimd::new()),
    ] {
        let mut simulation = simulation(make(), 1);
        // One at once on average, hardly ever ten.
        let quiet = simulation.run(HALF_A_MINUTE, 20.0);
        assert_eq!(quiet.max_limit, 20, "{:?}", simulation.permits.limit());
    }
}

#[test]
fn no_limit_leaves_its_bounds_whatever_happens() {
    for make in [
        (|| Box::new(Vegas::new().bounds(8, 5, 12))) as fn() -> Box<dyn Limit>,
        || Box::new(Gradient2::new().bounds(8, 5, 12)),
        || Box::new(Aimd::new().bounds(8, 5, 12)),
    ] {
        let (limit, mut rng) = (make(), Rng::with_seed(3));
        let mut now = Duration::ZERO;
        for _ in 0..100_000 {
            now += Duration::from_micros(rng.below_u64(20_000));
            let latency = Duration::from_micros((rng.unit() * 20.0).exp2() as u64);
            let in_flight = rng.below(20) as u32;
            let is_dropped = rng.below(5) == 0;
            limit.sample(Sample { latency, in_flight, is_dropped }, at(now));
            assert!((5..=12).contains(&limit.limit()), "{limit:?}");
        }
    }
}

#[test]
fn hundreds_of_calls_that_fail_together_shrink_aimd_once() {
    let limit = Aimd::new().bounds(100, 20, 200);
    let dropped = Sample { latency: ms(50), in_flight: 100, is_dropped: true };
    for _ in 0..100 {
        limit.sample(dropped, at(ms(100)));
    }
    assert_eq!(limit.limit(), 90);

    limit.sample(dropped, at(ms(151)));
    assert_eq!(limit.limit(), 81, "those began after it had shrunk");
    limit.sample(Sample { latency: ms(5_001), is_dropped: false, ..dropped }, at(ms(9_000)));
    assert_eq!(limit.limit(), 72, "too slow counts as dropped");
}

#[test]
fn sixteen_threads_take_every_permit_and_not_one_more() {
    let permits = Arc::new(Permits::new(Fixed::new(7)));
    let most = AtomicU32::new(0);
    let under_way = AtomicU32::new(0);
    let taken = AtomicU64::new(0);
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                barrier.wait();
                for _ in 0..20_000 {
                    if permits.acquire() {
                        let now = under_way.fetch_add(1, SeqCst) + 1;
                        most.fetch_max(now, SeqCst);
                        taken.fetch_add(1, SeqCst);
                        under_way.fetch_sub(1, SeqCst);
                        permits.release();
                    }
                }
            });
        }
    });
    assert!(most.load(SeqCst) <= 7, "{most:?}");
    assert_eq!(permits.in_flight(), 0);
    assert!(0 < taken.load(SeqCst));
    assert!((0..7).all(|_| permits.acquire()));
    assert!(!permits.acquire());
}

#[test]
fn sixteen_threads_lose_no_growth_of_aimd() {
    let limit = Aimd::new().bounds(20, 20, 1_000_000);
    let sample = Sample { latency: ms(1), in_flight: 1_000_000, is_dropped: false };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..10_000).for_each(|_| limit.sample(sample, at(ms(1)))));
        }
    });
    assert_eq!(limit.limit(), 20 + THREADS as u32 * 10_000);
}

#[test]
fn sixteen_threads_are_all_counted_by_the_throttle() {
    let throttle = AdaptiveThrottle::new().ratio(1.0);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let throttle = &throttle;
            scope.spawn(move || {
                for call in 0..1_000 {
                    // All of them in one window, each thread with its own view of the time.
                    let now = at(ms(call * 100 + thread as u64));
                    assert!(throttle.admit(|| 1.0, || now).is_ok());
                    throttle.record_refusal(now);
                }
            });
        }
    });
    let requests = THREADS as f64 * 1_000.0;
    assert_eq!(throttle.probability(at(ms(100_000))), requests / (requests + 1.0));
}

#[test]
fn the_throttle_has_the_formula_of_the_sre_book() {
    for (accepted, refused) in [(0, 0), (10, 0), (10, 10), (10, 11), (5, 100), (1_000, 3_000)] {
        let throttle = AdaptiveThrottle::new();
        let now = at(ms(0));
        for _ in 0..accepted {
            assert!(throttle.admit(|| 1.0, || now).is_ok());
        }
        for _ in 0..refused {
            assert!(throttle.admit(|| 1.0, || now).is_ok());
            throttle.record_refusal(now);
        }
        let requests = f64::from(accepted + refused);
        let expected = ((requests - 2.0 * f64::from(accepted)) / (requests + 1.0)).max(0.0);
        assert_eq!(throttle.probability(now), expected, "{accepted} accepted, {refused} refused");
    }
}

/// Vectors of grpc-java's Throttler, with draws that are all 0.5.
#[test]
fn the_throttle_decides_as_grpc_javas_does() {
    for (ratio, expected) in [(1.1, "nnnnnnnnyyyyynnnyyy"), (1.4, "nnnnnnnnyynnnnnnnnn")] {
        let throttle = AdaptiveThrottle::new().ratio(ratio).padding(8);
        let now = || at(ms(0));
        let mut decisions = String::new();
        for answer in "TTTTTTTTTAAAAAATTTT".chars() {
            // There the answer comes first, and then a request that only counts if it is refused.
            assert!(throttle.admit(|| 1.0, now).is_ok());
            if answer == 'T' {
                throttle.record_refusal(now());
            }
            let is_refused = 0.5 < throttle.probability(now());
            decisions.push(if is_refused { 'y' } else { 'n' });
            assert!(!is_refused || throttle.admit(|| 0.5, now).is_err());
        }
        assert_eq!(decisions, expected, "K = {ratio}");
    }

    let throttle = AdaptiveThrottle::new().ratio(1.0);
    let now = at(ms(0));
    let mut seen = Vec::new();
    assert!(throttle.admit(|| 1.0, || now).is_ok());
    for _ in 0..3 {
        assert!(throttle.admit(|| 1.0, || now).is_ok());
        throttle.record_refusal(now);
        seen.push(throttle.probability(now));
    }
    assert_eq!(seen, [1.0 / 3.0, 2.0 / 4.0, 3.0 / 5.0]);
}

#[test]
fn the_throttle_forgets_after_two_minutes_even_after_a_long_silence() {
    let throttle = AdaptiveThrottle::new();
    for _ in 0..50 {
        assert!(throttle.admit(|| 1.0, || at(ms(0))).is_ok());
        throttle.record_refusal(at(ms(0)));
    }
    assert!(0.9 < throttle.probability(at(ms(112_000))));
    assert_eq!(throttle.probability(at(ms(120_001))), 0.0);
    for days in [1, 3, 5, 7, 30] {
        let now = at(Duration::from_secs(days * 86_400));
        assert!(throttle.admit(|| 1.0, || now).is_ok());
        throttle.record_refusal(now);
        assert_eq!(throttle.probability(now), 0.5, "one of one, after {days} days");
    }
}

#[test]
fn a_throttled_client_asks_little_more_than_twice_what_is_accepted() {
    let throttle = AdaptiveThrottle::new();
    let mut rng = Rng::with_seed(5);
    let (mut sent, mut accepted) = (0, 0);
    let mut free_at = 0;
    for millis in 0..600_000_u64 {
        // A thousand a second, of which the server takes a hundred.
        let now = at(ms(millis));
        let is_late = 300_000 <= millis;
        if throttle.admit(|| rng.unit(), || now).is_ok() {
            sent += u32::from(is_late);
            if free_at <= millis {
                free_at = millis + 10;
                accepted += u32::from(is_late);
            } else {
                throttle.record_refusal(now);
            }
        }
    }
    let ratio = f64::from(sent) / f64::from(accepted);
    assert!((1.9..=2.2).contains(&ratio), "{sent} sent, {accepted} accepted");
}

#[test]
fn a_standing_queue_sheds_the_least_important_first_and_lets_them_back_in() {
    let shed = Shed::new();
    let mut rng = Rng::with_seed(9);
    let mut interval = |number: u64, waited: u64| {
        let mut let_in = [0; 2];
        for call in 0..1_000 {
            let now = at(ms(number * 100) + Duration::from_micros(call * 100));
            for (index, priority) in [Priority::CRITICAL, Priority::SHEDDABLE].iter().enumerate() {
                if shed.admit(*priority, || rng.unit(), || now) {
                    let_in[index] += 1;
                    shed.record_start(ms(waited), || now);
                }
            }
        }
        let_in
    };

    assert_eq!(interval(0, 20), [1_000, 1_000]);
    let first = interval(1, 20);
    assert_eq!(first[0], 1_000);
    assert!((860..=940).contains(&first[1]), "a twentieth of both less: {first:?}");
    let sheddable: Vec<_> = (2..20).map(|number| interval(number, 20)).collect();
    assert!(sheddable.iter().take(10).all(|[critical, _]| *critical == 1_000), "{sheddable:?}");
    assert!(sheddable[17][1] == 0, "{sheddable:?}");

    let later: Vec<_> = (20..120).map(|number| interval(number, 1)).collect();
    assert_eq!(later[99], [1_000, 1_000], "all of them are back");
    assert!(later[10][1] < 500, "slowly: {:?}", later[10]);
}

#[test]
fn a_request_that_did_not_wait_shows_that_no_queue_stands() {
    let shed = Shed::new();
    for millis in 0..100 {
        shed.record_start(ms(50), || at(ms(millis)));
    }
    assert_eq!(shed.max_wait(at(ms(100))), ms(5));
    assert!(shed.is_overloaded());

    for millis in 100..200 {
        shed.record_start(if millis == 150 { ms(4) } else { ms(50) }, || at(ms(millis)));
    }
    assert_eq!(shed.max_wait(at(ms(200))), ms(100));
    assert!(!shed.is_overloaded());
    assert_eq!(shed.max_wait(at(ms(10_000))), ms(100), "after a silence");
}

#[test]
fn a_hundredth_is_let_in_under_any_overload() {
    let shed = Shed::new();
    let mut rng = Rng::with_seed(2);
    let mut let_in = 0;
    for millis in 0..60_000 {
        let now = at(ms(millis));
        let is_in = shed.admit(Priority::CRITICAL_PLUS, || rng.unit(), || now);
        shed.record_refusal(ms(5), now);
        let_in += u32::from(is_in && 30_000 <= millis);
    }
    assert!((200..=450).contains(&let_in), "{let_in} of 30,000");
}

#[test]
fn a_client_that_calls_little_and_well_is_not_throttled_by_its_first_failures() {
    let throttle = AdaptiveThrottle::new();
    for call in 0..34_u64 {
        // One in ten seconds: twelve in two minutes. The last four of them are refused.
        let now = at(ms(call * 10_000));
        assert!(throttle.admit(|| 0.0, || now).is_ok(), "call {call}");
        if 30 <= call {
            throttle.record_refusal(now);
        }
        assert_eq!(throttle.probability(now), 0.0, "call {call}");
    }
}

#[test]
fn a_client_that_was_busy_and_calls_little_is_not_throttled_by_its_first_failure() {
    let throttle = AdaptiveThrottle::new();
    // A thousand at once, an hour of silence, and then one in ten seconds.
    (0..1_001).for_each(|_| assert!(throttle.admit(|| 1.0, || at(ms(0))).is_ok()));
    for call in 0..20_u64 {
        let now = at(ms(3_600_000 + call * 10_000));
        assert!(throttle.admit(|| 0.0, || now).is_ok());
    }
    let now = at(ms(3_800_000));
    assert!(throttle.admit(|| 0.0, || now).is_ok());
    throttle.record_refusal(now);
    assert!(throttle.admit(|| 0.0, || now).is_ok());
    assert_eq!(throttle.probability(now), 0.0);
}

#[test]
fn the_throttle_counts_what_a_list_of_all_calls_does() {
    const TICK: u64 = 7_500;
    let mut rng = Rng::with_seed(17);
    for seed in 0..20 {
        let throttle = AdaptiveThrottle::new().ratio(1.5);
        let mut calls: Vec<(u64, bool)> = Vec::new();
        let (mut millis, mut share) = (0, 0.0);
        for step in 0..2_000 {
            if rng.below(200) == 0 {
                millis += [30_000, 500_000, 4_000_000_000][rng.below(3)];
                share = [0.0, 0.3, 0.9][rng.below(3)];
            }
            // So few that each of them counts when it was made.
            millis += rng.below_u64(6_000);
            let now = at(ms(millis));
            let tick = now.as_nanos() / 1_000_000 / TICK;
            calls.retain(|(at, _)| tick - at < 16);
            let is_refused = rng.unit() < share;
            assert!(throttle.admit(|| 1.0, || now).is_ok());
            if is_refused {
                throttle.record_refusal(now);
            }
            calls.push((tick, is_refused));
            let requests = calls.len() as f64;
            let accepts = calls.iter().filter(|(_, is_refused)| !is_refused).count() as f64;
            let expected = ((requests - 1.5 * accepts) / (requests + 1.0)).max(0.0);
            assert_eq!(throttle.probability(now), expected, "seed {seed}, step {step}");
        }
    }
}

#[test]
fn aimd_does_what_a_plain_model_does() {
    for seed in 0..20 {
        let mut rng = Rng::with_seed(seed);
        let limit = Aimd::new().bounds(20, 5, 60).backoff_ratio(0.8).timeout(ms(500));
        let (mut model, mut shrank, mut now) = (20.0_f64, None, ms(0));
        for step in 0..2_000 {
            now += ms(rng.below_u64(20));
            let max_latency = if rng.below(20) == 0 { 1_000 } else { 100 };
            let sample = Sample {
                latency: ms(rng.below_u64(max_latency)),
                in_flight: 1 + rng.below(80) as u32,
                is_dropped: rng.below(25) == 0,
            };
            limit.sample(sample, at(now));

            let began = at(now).as_nanos() - sample.latency.as_nanos() as u64;
            if sample.is_dropped || ms(500) < sample.latency {
                // A call that began before it last shrank is no news.
                if shrank.is_none_or(|shrank| shrank < began) {
                    (model, shrank) = (model * 0.8, Some(at(now).as_nanos()));
                }
            } else if model <= 2.0 * f64::from(sample.in_flight) {
                model += 1.0;
            }
            model = model.clamp(5.0, 60.0);
            assert_eq!(limit.limit(), model as u32, "seed {seed}, step {step}");
        }
    }
}

/// Vectors of Netflix's AIMDLimitTest.
#[test]
fn aimd_grows_by_one_and_not_above_its_maximum() {
    let sample = Sample { latency: Duration::from_nanos(1), in_flight: 10, is_dropped: false };
    for (max, expected) in [(200, 21), (20, 20)] {
        let limit = Aimd::new().bounds(20, 20, max);
        limit.sample(sample, at(ms(1)));
        assert_eq!(limit.limit(), expected);
    }
    let limit = Aimd::new().bounds(21, 21, 21);
    limit.sample(sample, at(ms(1)));
    assert_eq!(limit.limit(), 21);
}
