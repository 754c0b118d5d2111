//! Whether memory grows.

use std::time::Duration;

use tokio::time::sleep;

/// Resident memory in the course of a run.
pub(crate) struct Memory(Vec<u64>);

const SAMPLES: u32 = 40;

/// Fragments and buffers that a longer run does not make more of.
const GROWTH_MAX: u64 = 8 << 20;

impl Memory {
    pub(crate) async fn watch(duration: Duration) -> Self {
        let mut samples = Vec::new();
        for _ in 0..SAMPLES {
            sleep(duration / SAMPLES).await;
            samples.extend(resident());
        }
        Self(samples)
    }

    /// Compares the last quarter with the second one: the first is warming up.
    pub(crate) fn judge(&self) -> Option<String> {
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
        (before + before / 10 + GROWTH_MAX < after)
            .then(|| format!("memory has grown from {before} to {after} bytes"))
    }
}

/// Bytes, where the system tells them.
fn resident() -> Option<u64> {
    const PAGE: u64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * PAGE)
}
