//! What one process may spend of a quota that many share.

use std::time::Duration;

use super::Grant;
use crate::time::Timestamp;

/// How many requests are fetched at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    max_batch: u32,
    horizon: Option<Duration>,
}

impl Plan {
    /// Always `batch` requests. With one, each request asks the server of the quota.
    ///
    /// # Panics
    /// If `batch` is zero.
    #[must_use]
    pub const fn fixed(batch: u32) -> Self {
        assert!(0 < batch, "one request at a time is the least");
        Self { max_batch: batch, horizon: None }
    }

    /// From one request up to `max_batch`: twice the last batch if that lasted for less than
    /// `horizon`, half of it if it lasted for more than four times `horizon`.
    ///
    /// # Panics
    /// If `max_batch` is zero.
    #[must_use]
    pub const fn adaptive(max_batch: u32, horizon: Duration) -> Self {
        assert!(0 < max_batch, "one request at a time is the least");
        Self { max_batch, horizon: Some(horizon) }
    }

    /// The most that a process holds at any time. By this much it may exceed the quota in some span
    /// of time.
    #[must_use]
    pub const fn max_batch(&self) -> u32 {
        self.max_batch
    }
}

/// The answer to a request that wants to spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// It may go. If `fetch` is set, the caller should fetch that many meanwhile.
    Spent {
        /// How many are left, here and on the server as of its last answer.
        remaining: u32,
        /// How many to fetch.
        fetch: Option<u32>,
    },
    /// The server had none left: it is worth asking again after this time.
    Refused(Duration),
    /// The caller must first fetch this many, and then draw again like the requests that wait.
    Fetch(u32),
    /// Another caller is fetching.
    Wait,
}

/// What one process may spend of a quota that many share, fetched in batches.
///
/// Each request that is spent here was taken from the quota before, so the total is never exceeded.
/// But it may be spent later than it was taken. In some span of time one process can send up to
/// [`Plan::max_batch`] more than the quota allows, or as many as were waiting for the same fetch if
/// those are more: they are served by the next fetch, whatever the batch.
///
/// More is fetched when a quarter of a batch is left, so that steady traffic never waits. A caller
/// that is told to fetch must end the fetch by [`add_grant`](Self::add_grant) or
/// [`record_failure`](Self::record_failure).
#[derive(Clone, Debug)]
pub struct Allowance {
    plan: Plan,
    tokens: u32,
    batch: u32,
    is_fetching: bool,
    /// How many were told to wait since the fetch began.
    waiting: u32,
    /// How many will come back because the last fetch did not serve them.
    unserved: u32,
    /// When the server last granted some.
    granted_at: Option<Timestamp>,
    /// Until when the server will have none left.
    empty_until: Timestamp,
    /// How many the server had left at its last answer.
    remaining: u32,
}

impl Allowance {
    /// An allowance with nothing in it yet.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let batch = if plan.horizon.is_some() { 1 } else { plan.max_batch };
        Self {
            plan,
            tokens: 0,
            batch,
            is_fetching: false,
            waiting: 0,
            unserved: 0,
            granted_at: None,
            empty_until: Timestamp::default(),
            remaining: 0,
        }
    }

    /// Spends one request, if there is one.
    pub fn draw(&mut self, now: Timestamp) -> Draw {
        let is_empty = now < self.empty_until;
        if self.tokens == 0 && is_empty {
            return Draw::Refused(self.empty_until.since(now));
        }
        let is_spent = 0 < self.tokens;
        self.tokens -= u32::from(is_spent);
        let is_low = self.tokens <= self.batch / 4;
        // A batch of one is never fetched ahead: it may be all that traffic needs for a long time.
        let is_ahead = is_spent && self.batch == 1;
        let fetch = (is_low && !is_ahead && !is_empty && !self.is_fetching).then(|| {
            self.is_fetching = true;
            self.batch = self.next_batch(now);
            let wanted = self.batch.saturating_sub(self.tokens).max(1);
            wanted.max(std::mem::take(&mut self.unserved))
        });
        match (is_spent, fetch) {
            (true, fetch) => {
                Draw::Spent { remaining: self.tokens.saturating_add(self.remaining), fetch }
            }
            (false, Some(wanted)) => Draw::Fetch(wanted),
            (false, None) => {
                self.waiting += 1;
                Draw::Wait
            }
        }
    }

    /// The server granted `grant`.
    pub fn add_grant(&mut self, now: Timestamp, grant: &Grant) {
        self.ended();
        self.unserved = self.unserved.saturating_sub(grant.tokens);
        self.tokens = self.tokens.saturating_add(grant.tokens);
        self.remaining = grant.remaining;
        if 0 < grant.tokens {
            self.granted_at = Some(now);
        } else {
            self.empty_until = now + grant.retry_after;
        }
    }

    /// The server could not be asked.
    pub fn record_failure(&mut self) {
        self.ended();
    }

    fn ended(&mut self) {
        self.is_fetching = false;
        self.unserved = std::mem::take(&mut self.waiting);
    }

    fn next_batch(&self, now: Timestamp) -> u32 {
        let (Some(horizon), Some(granted_at)) = (self.plan.horizon, self.granted_at) else {
            return self.batch;
        };
        let lasted = now.since(granted_at);
        if lasted < horizon {
            self.batch.saturating_mul(2).min(self.plan.max_batch)
        } else if horizon.saturating_mul(4) < lasted {
            (self.batch / 2).max(1)
        } else {
            self.batch
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::{Bucket, Rate};

    const START: Timestamp = Timestamp::from_nanos(1 << 62);

    fn grant(tokens: u32) -> Grant {
        Grant { tokens, remaining: 0, retry_after: Duration::from_millis(100) }
    }

    #[test]
    fn the_first_request_fetches_and_the_others_wait_for_it() {
        let mut allowance = Allowance::new(Plan::fixed(8));
        assert_eq!(allowance.draw(START), Draw::Fetch(8));
        assert_eq!(allowance.draw(START), Draw::Wait);
        allowance.add_grant(START, &grant(8));
        assert_eq!(allowance.draw(START), Draw::Spent { remaining: 7, fetch: None });
    }

    #[test]
    fn more_is_fetched_before_the_last_is_spent_and_never_more_than_a_batch_is_held() {
        let mut allowance = Allowance::new(Plan::fixed(8));
        allowance.add_grant(START, &grant(8));
        for _ in 0..5 {
            assert!(matches!(allowance.draw(START), Draw::Spent { fetch: None, .. }));
        }
        assert_eq!(allowance.draw(START), Draw::Spent { remaining: 2, fetch: Some(6) });
        allowance.add_grant(START, &grant(6));
        assert_eq!(allowance.draw(START), Draw::Spent { remaining: 7, fetch: None });
    }

    #[test]
    fn a_crowd_is_served_by_its_second_fetch() {
        let mut allowance = Allowance::new(Plan::fixed(1));
        assert_eq!(allowance.draw(START), Draw::Fetch(1));
        for _ in 0..100 {
            assert_eq!(allowance.draw(START), Draw::Wait);
        }
        allowance.add_grant(START, &grant(1));
        assert!(matches!(allowance.draw(START), Draw::Spent { .. }));
        assert_eq!(allowance.draw(START), Draw::Fetch(99));
        allowance.add_grant(START, &grant(99));
        for _ in 0..99 {
            assert!(matches!(allowance.draw(START), Draw::Spent { .. }));
        }
    }

    #[test]
    fn an_empty_quota_is_not_asked_again_before_it_can_have_any() {
        let mut allowance = Allowance::new(Plan::fixed(8));
        assert_eq!(allowance.draw(START), Draw::Fetch(8));
        allowance.add_grant(START, &grant(0));
        assert_eq!(allowance.draw(START), Draw::Refused(Duration::from_millis(100)));
        let later = START + Duration::from_millis(99);
        assert_eq!(allowance.draw(later), Draw::Refused(Duration::from_millis(1)));
        assert_eq!(allowance.draw(START + Duration::from_millis(100)), Draw::Fetch(8));
    }

    #[test]
    fn a_failed_fetch_is_made_again() {
        let mut allowance = Allowance::new(Plan::fixed(1));
        assert_eq!(allowance.draw(START), Draw::Fetch(1));
        allowance.record_failure();
        assert_eq!(allowance.draw(START), Draw::Fetch(1));
    }

    #[test]
    fn batches_grow_with_demand_and_shrink_without() {
        let mut allowance = Allowance::new(Plan::adaptive(16, Duration::from_millis(100)));
        let mut now = START;
        let mut fetched = |every: Duration, requests| {
            let mut fetched = Vec::new();
            for _ in 0..requests {
                now = now + every;
                while let Draw::Fetch(wanted) | Draw::Spent { fetch: Some(wanted), .. } =
                    allowance.draw(now)
                {
                    fetched.push(wanted);
                    allowance.add_grant(now, &grant(wanted));
                }
            }
            fetched
        };

        let busy = fetched(Duration::from_millis(1), 200);
        let idle = fetched(Duration::from_secs(1), 200);

        assert_eq!(busy[0], 1);
        assert!(12 <= *busy.last().unwrap(), "{busy:?}");
        assert!(*idle.last().unwrap() <= 2, "{idle:?}");
    }

    /// Machines that share a bucket, in a simulation.
    #[test]
    fn machines_together_never_exceed_the_quota_by_more_than_their_batches() {
        let rate = Rate::per_second(50).burst(10);
        let (machines, batch) = (3, 8);
        let mut rng = crate::rng::Rng::with_seed(11);
        let mut bucket = Bucket::default();
        let mut all = vec![Allowance::new(Plan::fixed(batch)); machines];
        let (mut now, mut sent) = (START, Vec::new());
        for _ in 0..4_000 {
            now = now + Duration::from_micros(rng.below_u64(4_000));
            let allowance = &mut all[rng.below(machines)];
            let draw = allowance.draw(now);
            if let Draw::Fetch(wanted) | Draw::Spent { fetch: Some(wanted), .. } = draw {
                allowance.add_grant(now, &bucket.take(&rate, now, wanted));
            }
            if matches!(draw, Draw::Spent { .. }) {
                sent.push(now);
            }
        }

        let total = 10.0 + now.since(START).as_secs_f64() * 50.0;
        assert!(sent.len() as f64 <= total, "{} of {total}", sent.len());
        assert!(total * 0.9 < sent.len() as f64, "{} of {total}", sent.len());
        for (index, &first) in sent.iter().enumerate() {
            for (count, &last) in sent[index..].iter().enumerate() {
                let quota = 10.0 + last.since(first).as_secs_f64() * 50.0;
                let bound = quota + f64::from(batch) * machines as f64;
                assert!((count + 1) as f64 <= bound, "{} in {bound}", count + 1);
            }
        }
    }
}
