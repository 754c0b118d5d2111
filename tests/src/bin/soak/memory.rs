//! Checks that memory does not grow.

use std::time::Duration;

use tokio::time::sleep;

/// Samples of resident memory during a run.
pub(crate) struct Memory(Vec<u64>);

const SAMPLES: u32 = 40;

/// Allowed growth: fragmentation and buffers, which a longer run does not increase.
const MAX_GROWTH: u64 = 8 << 20;

impl Memory {
    pub(crate) async fn watch(duration: Duration) -> Self {
        let mut samples = Vec::new();
        for _ in 0..SAMPLES {
            sleep(duration / SAMPLES).await;
            samples.extend(resident());
        }
        Self(samples)
    }

    /// Compares the last quarter with the second one, because the first is warming up.
    pub(crate) fn find_growth(&self) -> Option<String> {
        let quarter = self.0.len() / 4;
        if quarter == 0 {
            println!("resident memory is not known here");
            return None;
        }
        let median = |samples: &[u64]| {
            let mut sorted = samples.to_vec();
            sorted.sort_unstable();
            sorted[sorted.len() / 2]
        };
        let before = median(&self.0[quarter..2 * quarter]);
        let after = median(&self.0[self.0.len() - quarter..]);
        println!("resident memory: {} MiB, then {} MiB", before >> 20, after >> 20);
        (before + before / 10 + MAX_GROWTH < after)
            .then(|| format!("memory has grown from {before} to {after} bytes"))
    }
}

/// Resident memory in bytes, if the system reports it.
fn resident() -> Option<u64> {
    const PAGE: u64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * PAGE)
}
