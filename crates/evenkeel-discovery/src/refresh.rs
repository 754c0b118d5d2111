//! Requests for fresh news, at a bounded rate.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::clock;

/// How many requests are granted at once after a calm.
const BURST: u32 = 3;
/// How long it takes until one more request is granted.
const INTERVAL: Duration = Duration::from_secs(1);

/// The requests for fresh news that reach one source, limited by a token bucket.
///
/// Many endpoints can fail in one moment, and each failure makes a request. A request that finds
/// the bucket empty is granted as soon as there is a token. It is never lost, and two requests
/// before the grant count as one.
#[derive(Debug)]
pub(crate) struct Refresh {
    asked: Arc<Notify>,
    /// Whether there is a request that has not been granted yet.
    is_asked: bool,
    /// The bucket as a point in time: when it will be full again.
    full_at: Instant,
}

impl Refresh {
    pub(crate) fn new(asked: Arc<Notify>) -> Self {
        Self { asked, is_asked: false, full_at: clock::now() }
    }

    /// Waits until a request for fresh news is granted. A wait that is dropped loses no request.
    pub(crate) async fn wait_for_grant(&mut self) {
        if !self.is_asked {
            self.asked.notified().await;
            self.is_asked = true;
        }
        // There is a token in the bucket if it is not short of all of them.
        let one_left = clock::now() + INTERVAL * (BURST - 1);
        sleep(self.full_at.saturating_duration_since(one_left)).await;
        self.is_asked = false;
        self.full_at = self.full_at.max(clock::now()) + INTERVAL;
    }

    /// Waits for `delay`, or shorter if a request for fresh news is granted.
    pub(crate) async fn wait(&mut self, delay: Duration) {
        tokio::select! {
            () = sleep(delay) => {}
            () = self.wait_for_grant() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refresh_is_not_lost_when_a_wait_for_it_is_dropped() {
        let asked = Arc::<Notify>::default();
        let mut refresh = Refresh::new(asked.clone());
        for _ in 0..BURST {
            asked.notify_one();
            refresh.wait_for_grant().await;
        }

        asked.notify_one();
        let too_short = tokio::time::timeout(INTERVAL / 2, refresh.wait_for_grant()).await;
        assert!(too_short.is_err());

        let in_time = tokio::time::timeout(INTERVAL, refresh.wait_for_grant()).await;
        assert!(in_time.is_ok(), "it is granted later");
    }

    #[tokio::test(start_paused = true)]
    async fn three_refreshes_are_granted_at_once_and_then_one_a_second() {
        let asked = Arc::<Notify>::default();
        let mut refresh = Refresh::new(asked.clone());
        let start = clock::now();
        let mut granted = vec![];

        for _ in 0..6 {
            asked.notify_one();
            refresh.wait_for_grant().await;
            granted.push(start.elapsed().as_secs());
        }
        assert_eq!(granted, [0, 0, 0, 1, 2, 3]);

        sleep(Duration::from_secs(60)).await;
        let start = clock::now();
        for _ in 0..4 {
            asked.notify_one();
            refresh.wait_for_grant().await;
        }
        assert_eq!(start.elapsed().as_secs(), 1, "a long calm fills the bucket, and no more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_early_when_asked_and_in_time_when_not() {
        let asked = Arc::<Notify>::default();
        let mut refresh = Refresh::new(asked.clone());
        let start = clock::now();

        asked.notify_one();
        asked.notify_one();
        refresh.wait(Duration::from_secs(30)).await;
        assert_eq!(start.elapsed(), Duration::ZERO);

        refresh.wait(Duration::from_secs(30)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(30), "asked twice is granted once");
    }
}
