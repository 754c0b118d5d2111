//! Measures contenders in alternating rounds in one process, so that other work on the machine
//! affects all of them alike.

use std::time::Duration;

use tokio::{runtime::Runtime, task::JoinSet};

use crate::{clock::Stopwatch, contender::Contender};

/// This many rounds of about this length for each contender.
///
/// Computation is best measured in rounds shorter than the time slice of a scheduler: on a busy
/// machine some of them are not interrupted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rounds {
    pub(crate) count: usize,
    pub(crate) length: Duration,
}

/// Nanoseconds per request, one figure for each round.
#[derive(Clone, Debug)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// The least disturbed round: the figure for pure computation.
    pub(crate) fn best(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The median round: the figure for what passes through sockets and other processes.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }

    /// How many times as long as `other` it takes: the median over neighbouring rounds.
    pub(crate) fn ratio(&self, other: &Self) -> f64 {
        Self(self.0.iter().zip(&other.0).map(|(own, other)| own / other).collect()).median()
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(samples: I) -> Self {
        Self(samples.into_iter().collect())
    }
}

/// A runtime with a worker for each core, as `#[tokio::main]` makes it.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads are to be had")
}

/// A runtime on the calling thread, which the allocation counter sees.
pub(crate) fn local_runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it needs nothing")
}

/// Nanoseconds per request over `tasks` tasks: the time of a round divided by all its requests.
pub(crate) fn alternate(
    runtime: &Runtime,
    contenders: &[&dyn Contender],
    tasks: u64,
    rounds: Rounds,
) -> Vec<Samples> {
    let warm_up = |contender| {
        round(runtime, contender, tasks, 4);
        round(runtime, contender, tasks, 64 / tasks)
    };
    let mut best: Vec<_> = contenders.iter().map(|contender| warm_up(*contender)).collect();
    let mut samples = vec![Vec::with_capacity(rounds.count); contenders.len()];
    let mut slow = vec![false; contenders.len()];
    for number in 0..GROWING + rounds.count {
        for (index, contender) in contenders.iter().enumerate() {
            if slow[index] && SLOW_ROUNDS <= samples[index].len() {
                continue;
            }
            // The quickest round so far determines the length of this one. The first rounds only
            // settle it: a short round consists mostly of starting tasks.
            let requests = rounds.length.as_nanos() as f64 / best[index] / tasks as f64;
            let sample = round(runtime, *contender, tasks, (requests as u64).max(1));
            best[index] = sample.min(best[index]);
            slow[index] = rounds.length.as_nanos() as f64 / 4.0 < best[index];
            if GROWING <= number {
                samples[index].push(sample);
            }
        }
    }
    samples.into_iter().map(Samples).collect()
}

/// This many rounds come first and are not counted.
const GROWING: usize = 2;

/// If a few requests fill a round, this many rounds are enough.
const SLOW_ROUNDS: usize = 5;

/// Heap allocations per request, over all tasks and workers that take part.
///
/// `make` is called inside the measured runtime.
pub(crate) fn allocations(make: impl FnOnce() -> Box<dyn Contender>) -> f64 {
    // A multiple of 32, because tokio's channels allocate one block for 32 messages.
    const REQUESTS: u64 = 320;
    let runtime = local_runtime();
    let contender = {
        let _inside = runtime.enter();
        make()
    };
    runtime.block_on(contender.work(REQUESTS));
    let work = contender.work(REQUESTS);
    let counted = allocation_counter::measure(|| runtime.block_on(work));
    counted.count_total as f64 / REQUESTS as f64
}

/// One round, in nanoseconds per request.
fn round(runtime: &Runtime, contender: &dyn Contender, tasks: u64, requests: u64) -> f64 {
    let inside = runtime.enter();
    let work: Vec<_> = (0..tasks).map(|_| contender.work(requests)).collect();
    drop(inside);
    let stopwatch = Stopwatch::start();
    runtime.block_on(async {
        let mut running: JoinSet<()> = work.into_iter().collect();
        while let Some(ended) = running.join_next().await {
            ended.expect("no contender panics");
        }
    });
    stopwatch.nanos() / (requests * tasks) as f64
}
