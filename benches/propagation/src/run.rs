//! A whole run: its trials, their parallelism, and the progress.

use std::{collections::VecDeque, process, sync::Arc, time::Duration};

use evenkeel_rig::{busy::Busy, clock::Origin, percentiles::Percentiles};
use tokio::task::JoinSet;

use crate::{
    BoxError,
    event::Event,
    goals,
    options::Options,
    report,
    scene::Lane,
    trial::{Figures, Setup},
};

/// How often the progress is printed.
const PROGRESS_EVERY: Duration = Duration::from_secs(15);

/// At most this many remarks of a cell are kept.
const MAX_REMARKS: usize = 3;

/// The registry's name in the tables for a set that comes from a channel.
const CHANNEL: &str = "channel";

/// The trials of one event, registry and caller.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) event: Event,
    pub(crate) registry: &'static str,
    pub(crate) caller: &'static str,
    pub(crate) trials: Vec<Figures>,
    /// Why there are no trials, or what went wrong in some of them.
    pub(crate) remarks: Vec<String>,
}

impl Cell {
    pub(crate) fn applied(&self) -> Option<Percentiles> {
        Percentiles::of(self.trials.iter().flat_map(|trial| trial.applied.iter().copied()))
    }

    pub(crate) fn announced(&self) -> Option<Percentiles> {
        Percentiles::of(self.trials.iter().flat_map(|trial| trial.announced.iter().copied()))
    }

    pub(crate) fn request(&self) -> Option<Percentiles> {
        Percentiles::of(self.trials.iter().flat_map(|trial| trial.request.iter().copied()))
    }

    pub(crate) fn memory(&self) -> Option<f64> {
        Percentiles::of(self.trials.iter().filter_map(|trial| trial.memory)).map(|all| all.worst)
    }

    pub(crate) fn errors(&self) -> usize {
        self.trials.iter().map(|trial| trial.errors).sum()
    }

    pub(crate) fn connections(&self) -> usize {
        self.trials.iter().map(|trial| trial.connections).max().unwrap_or_default()
    }
}

/// Runs the trials that `options` choose, and prints the results.
pub(crate) fn run(options: Options) -> Result<(), BoxError> {
    if options.list {
        return report::list(&options);
    }
    crate::install_cryptography();
    let options = Arc::new(options);
    let events = options.events()?;
    let (mut cells, mut plan) = (Vec::new(), Vec::new());
    for &event in &events {
        add_cells(event, &options, &mut cells, &mut plan)?;
    }
    let busy = Busy::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(all_trials(&options, &plan, &mut cells))?;
    let busy = busy.zip(Busy::now()).and_then(|(before, after)| after.since(before));

    report::print(&options, &events, &cells, busy);
    goals::print(&cells, options.endpoints, options.markdown);
    if let Some(path) = &options.json {
        report::write_json(path, &options, &cells)?;
    }
    verdict(&plan, &cells)
}

/// Adds the cells of an event, and the trials that can run.
fn add_cells(
    event: Event,
    options: &Arc<Options>,
    cells: &mut Vec<Cell>,
    plan: &mut Vec<Planned>,
) -> Result<(), BoxError> {
    let mut is_there = false;
    for registry in options.registries()? {
        for caller in options.callers()? {
            // A whole set does not come from a registry, so it is measured once.
            let is_whole = event == Event::WholeSet;
            if is_whole && (is_there || caller.name() != goals::OURS) {
                continue;
            }
            let fits = registry.supports(event) && caller.reads(registry.name(), event);
            if !is_whole && !fits {
                continue;
            }
            is_there = true;
            let (name, missing) = match is_whole {
                true => (CHANNEL, None),
                false => (registry.name(), registry.missing().or(caller.missing())),
            };
            if missing.is_none() {
                let (registry, caller) = (registry.clone(), caller.clone());
                let options = options.clone();
                let setup = Setup { registry, caller, event, options, seed: 0 };
                plan.push(Planned { cell: cells.len(), setup });
            }
            let remarks = missing.into_iter().collect();
            let (caller, trials) = (caller.name(), Vec::new());
            cells.push(Cell { event, registry: name, caller, trials, remarks });
        }
    }
    Ok(())
}

/// A planned trial, and the cell of its figures.
struct Planned {
    cell: usize,
    setup: Setup,
}

impl Planned {
    /// How many trials there are.
    fn trials(&self) -> u32 {
        // A single trial has hundreds of changes.
        if self.setup.event == Event::Churn { 1 } else { self.setup.options.trials }
    }
}

/// Fails if callers saw an error that they must not see, or if a trial could not run.
fn verdict(plan: &[Planned], cells: &[Cell]) -> Result<(), BoxError> {
    let failed: usize =
        plan.iter().map(|one| one.trials() as usize - cells[one.cell].trials.len()).sum();
    if 0 < failed {
        return Err(format!("{failed} trials could not be run").into());
    }
    let unseen = |cell: &&Cell| cell.caller == goals::OURS && cell.event.must_be_unseen();
    let errors: usize = cells.iter().filter(unseen).map(Cell::errors).sum();
    if 0 < errors {
        return Err(format!("callers saw {errors} errors where they must see none").into());
    }
    Ok(())
}

async fn all_trials(
    options: &Arc<Options>,
    plan: &[Planned],
    cells: &mut [Cell],
) -> Result<(), BoxError> {
    // Several runs on one machine use different addresses.
    let base = 64 + u8::try_from(process::id() % 128)?;
    let (small, large): (Vec<_>, Vec<_>) =
        plan.iter().partition(|planned| !planned.setup.event.is_large());
    let total: u32 = plan.iter().map(Planned::trials).sum();
    let mut progress = Progress { origin: Origin::now(), said: Duration::ZERO, done: 0, total };
    for (planned, parallel) in [(small, options.parallel), (large, 1)] {
        let mut lanes: VecDeque<Lane> = (0..parallel).map(|number| Lane { base, number }).collect();
        let mut running = JoinSet::new();
        // Events and callers take turns, so that other work on the machine affects all of them
        // alike.
        for trial in 0..options.trials {
            for one in planned.iter().filter(|one| trial < one.trials()) {
                if lanes.is_empty() {
                    lanes.push_back(collect_trial(&mut running, cells).await?);
                    progress.step();
                }
                let lane = lanes.pop_front().ok_or("a lane is free by now")?;
                let seed = options.seed.wrapping_mul(1_000_003).wrapping_add(trial.into());
                let (cell, setup) = (one.cell, Setup { seed, ..one.setup.clone() });
                running.spawn(async move { (cell, lane, setup.run(lane).await) });
            }
        }
        while !running.is_empty() {
            collect_trial(&mut running, cells).await?;
            progress.step();
        }
    }
    Ok(())
}

struct Progress {
    origin: Origin,
    said: Duration,
    done: u32,
    total: u32,
}

impl Progress {
    fn step(&mut self) {
        self.done += 1;
        let now = self.origin.elapsed();
        if self.said + PROGRESS_EVERY <= now || self.done == self.total {
            self.said = now;
            eprintln!("{:5.0} s: {} of {} trials", now.as_secs_f64(), self.done, self.total);
        }
    }
}

type Outcome = (usize, Lane, Result<Figures, BoxError>);

/// Waits for a trial, keeps its figures, and frees its lane.
async fn collect_trial(
    running: &mut JoinSet<Outcome>,
    cells: &mut [Cell],
) -> Result<Lane, BoxError> {
    let (cell, lane, result) = running.join_next().await.ok_or("a trial is running")??;
    let cell = &mut cells[cell];
    let remark = match result {
        Ok(figures) => {
            let first = figures.first_error.as_ref().map(|error| format!("an error: {error}"));
            cell.trials.push(figures);
            first
        }
        Err(error) => Some(format!("a trial could not be run: {error}")),
    };
    if let Some(remark) = remark
        && !cell.remarks.contains(&remark)
        && cell.remarks.len() < MAX_REMARKS
    {
        cell.remarks.push(remark);
    }
    Ok(lane)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn cell(event: Event, caller: &'static str, errors: usize) -> Cell {
        let trials = vec![Figures { errors, ..Figures::default() }];
        Cell { event, registry: "etcd", caller, trials, remarks: vec![] }
    }

    #[test]
    fn an_error_fails_a_run_if_our_callers_must_see_none() {
        let fails = |cell| verdict(&[], &[cell]).is_err();

        assert!(fails(cell(Event::Partition, goals::OURS, 1)));
        assert!(!fails(cell(Event::Partition, goals::OURS, 0)));
        assert!(!fails(cell(Event::Crash, goals::OURS, 1)), "no promise is made there");
        assert!(!fails(cell(Event::Leave, "traefik", 1)), "a peer may");
    }

    #[test]
    fn percentiles_are_over_all_changes_of_all_trials() {
        let mut cell = cell(Event::Churn, goals::OURS, 0);
        cell.trials[0].applied = vec![1.0, 5.0];
        cell.trials.push(Figures { applied: vec![3.0], ..Figures::default() });

        let found = cell.applied().unwrap();

        assert_eq!((found.p50, found.worst), (3.0, 5.0));
    }
}
