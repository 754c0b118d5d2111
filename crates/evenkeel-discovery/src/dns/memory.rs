//! The memory of one question, and what it makes believed of the next answer.

use std::time::Duration;

use evenkeel_core::BoxError;
use tokio::time::Instant;

use super::resolver::Answer;

/// How many answers in a row must deny the records before that is believed.
const MIN_DENIALS: u32 = 2;

/// The last good answer to one question, and how often its records were denied since.
#[derive(Clone, Debug)]
pub(super) struct Memory<T> {
    last: Vec<T>,
    good_at: Option<Instant>,
    denials: u32,
    /// The time to live of the last answer, if there was one.
    ttl: Option<Duration>,
}

/// What is believed after an answer, or after none.
#[derive(Debug)]
pub(super) struct Belief<T> {
    pub(super) records: Vec<T>,
    pub(super) fresh: Freshness,
}

#[derive(Debug)]
pub(super) enum Freshness {
    /// A server said so, and the answer is valid for that long.
    Fresh(Duration),
    /// A server denies it for the first time; ask again after that long.
    Denied(Duration),
    /// No server answered.
    Failed(BoxError),
}

impl<T> Belief<T> {
    pub(super) fn failed(error: BoxError) -> Self {
        Self { records: vec![], fresh: Freshness::Failed(error) }
    }
}

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self { last: vec![], good_at: None, denials: 0, ttl: None }
    }
}

impl<T: Clone> Memory<T> {
    /// Takes an answer. The last good answer is used for `max_stale` after it was given.
    pub(super) fn believe(
        &mut self,
        answer: Result<Answer<T>, BoxError>,
        now: Instant,
        max_stale: Duration,
    ) -> Belief<T> {
        let failed = match answer {
            Ok(answer) if !answer.records.is_empty() => {
                let ttl = Some(answer.ttl);
                *self = Self { last: answer.records, good_at: Some(now), denials: 0, ttl };
                None
            }
            Ok(answer) => {
                self.denials = self.denials.saturating_add(1);
                self.ttl = Some(answer.ttl);
                if MIN_DENIALS <= self.denials {
                    self.last.clear();
                }
                None
            }
            Err(error) => {
                self.ttl = None;
                Some(error)
            }
        };
        let belief = self.recall(now, max_stale);
        match failed {
            Some(error) => Belief { fresh: Freshness::Failed(error), ..belief },
            None => belief,
        }
    }

    /// What is believed while the question is not asked again.
    pub(super) fn recall(&mut self, now: Instant, max_stale: Duration) -> Belief<T> {
        let fresh = match self.ttl {
            Some(ttl) if (1..MIN_DENIALS).contains(&self.denials) => Freshness::Denied(ttl),
            Some(ttl) => Freshness::Fresh(ttl),
            None => Freshness::Failed("the last question had no answer".into()),
        };
        // An answer holds until the next question, however late that is.
        let is_unanswered = self.ttl.is_none();
        if is_unanswered && self.good_at.is_none_or(|good_at| max_stale <= now - good_at) {
            self.last.clear();
        }
        Belief { records: self.last.clone(), fresh }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const TTL: Duration = Duration::from_secs(5);
    const MAX_STALE: Duration = Duration::from_secs(300);

    fn said(records: &[u8]) -> Result<Answer<u8>, BoxError> {
        Ok(Answer { records: records.to_vec(), ttl: TTL })
    }

    #[test]
    fn a_denial_is_believed_the_second_time_unless_an_answer_comes_in_between() {
        let (mut memory, now) = (Memory::default(), clock::now());
        memory.believe(said(&[1]), now, MAX_STALE);

        let once = memory.believe(said(&[]), now, MAX_STALE);
        assert!(matches!(once.fresh, Freshness::Denied(TTL)));
        assert_eq!(once.records, [1]);

        memory.believe(said(&[2]), now, MAX_STALE);
        assert_eq!(memory.believe(said(&[]), now, MAX_STALE).records, [2]);
        assert_eq!(memory.believe(Err("lost".into()), now, MAX_STALE).records, [2]);

        let twice = memory.believe(said(&[]), now, MAX_STALE);
        assert!(matches!(twice.fresh, Freshness::Fresh(TTL)));
        assert!(twice.records.is_empty());
    }

    #[test]
    fn an_answer_holds_until_it_is_asked_for_again_however_late_that_is() {
        let (mut memory, now) = (Memory::default(), clock::now());
        memory.believe(said(&[1]), now, MAX_STALE);

        assert_eq!(memory.recall(now + 2 * MAX_STALE, MAX_STALE).records, [1]);
    }

    #[test]
    fn remembered_records_are_used_until_they_are_too_old() {
        let (mut memory, now) = (Memory::default(), clock::now());
        memory.believe(said(&[1]), now, MAX_STALE);

        let almost = now + MAX_STALE - Duration::from_millis(1);
        assert_eq!(memory.believe(Err("lost".into()), almost, MAX_STALE).records, [1]);
        assert!(memory.believe(Err("lost".into()), now + MAX_STALE, MAX_STALE).records.is_empty());
    }
}
