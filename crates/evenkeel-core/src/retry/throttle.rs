//! gRPC's retry throttle.

use crate::sync::{AtomicU32, Ordering};

/// Counts tokens in thousandths: a failure takes a thousand, a success gives the ratio.
#[derive(Debug)]
pub(super) struct Throttle {
    tokens: AtomicU32,
    max_tokens: u32,
    ratio: u32,
}

const TOKEN: u32 = 1_000;

impl Throttle {
    pub(super) fn new(max_tokens: u32, token_ratio: f64) -> Self {
        assert!((1..=1_000).contains(&max_tokens), "{max_tokens} tokens");
        assert!((0.001..=1_000.0).contains(&token_ratio), "a token ratio of {token_ratio}");
        let max_tokens = max_tokens * TOKEN;
        // gRPC rounds in the same way: places beyond the third do not count.
        let ratio = (token_ratio * f64::from(TOKEN)).round() as u32;
        Self { tokens: AtomicU32::new(max_tokens), max_tokens, ratio }
    }

    pub(super) fn is_allowed(&self) -> bool {
        self.max_tokens / 2 < self.tokens.load(Ordering::Relaxed)
    }

    pub(super) fn record_success(&self) {
        // A full bucket is the normal case: only reading it leaves the cache line shared.
        if self.tokens.load(Ordering::Relaxed) < self.max_tokens {
            self.update(|tokens| (tokens + self.ratio).min(self.max_tokens));
        }
    }

    pub(super) fn record_failure(&self) {
        self.update(|tokens| tokens.saturating_sub(TOKEN));
    }

    pub(super) fn failures_left(&self) -> u64 {
        let above = self.tokens.load(Ordering::Relaxed).saturating_sub(self.max_tokens / 2);
        u64::from(above.div_ceil(TOKEN))
    }

    fn update(&self, change: impl Fn(u32) -> u32) {
        let changed = |tokens| Some(change(tokens));
        let updated = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, changed);
        debug_assert!(updated.is_ok(), "every value has a successor");
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn tokens_move_as_in_grpc_java() {
        // From grpc-java's RetriableStreamTest, maxTokens 4 and tokenRatio 0.8.
        let steps = [
            ('F', 3.0, true),
            ('F', 2.0, false),
            ('F', 1.0, false),
            ('F', 0.0, false),
            ('F', 0.0, false),
            ('F', 0.0, false),
            ('S', 0.8, false),
            ('S', 1.6, false),
            ('S', 2.4, true),
            ('S', 3.2, true),
            ('S', 4.0, true),
            ('S', 4.0, true),
            ('F', 3.0, true),
            ('F', 2.0, false),
        ];
        let throttle = Throttle::new(4, 0.8);
        for (number, (step, tokens, is_allowed)) in steps.into_iter().enumerate() {
            match step {
                'S' => throttle.record_success(),
                _ => throttle.record_failure(),
            }
            let thousandths = throttle.tokens.load(Ordering::Relaxed);
            assert_eq!(f64::from(thousandths) / 1_000.0, tokens, "step {number}");
            assert_eq!(throttle.is_allowed(), is_allowed, "step {number}");
        }
    }

    #[test]
    fn failures_are_counted_down_to_the_last_that_is_allowed() {
        let throttle = Throttle::new(10, 0.1);
        for left in (1..=5).rev() {
            assert_eq!(throttle.failures_left(), left);
            assert!(throttle.is_allowed());
            throttle.record_failure();
        }
        assert_eq!(throttle.failures_left(), 0);
        assert!(!throttle.is_allowed());
    }
}
