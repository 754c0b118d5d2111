//! A whole run: which trials, how many at a time, how far it has come.

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

/// How often it is said how far the run has come.
const PROGRESS_EVERY: Duration = Duration::from_secs(15);

/// Remarks of one cell that are kept.
const REMARKS_MAX: usize = 3;

/// Where a set comes from that comes from no registry.
const CHANNEL: &str = "channel";

/// The trials of one event, registry and caller.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) event: Event,
    pub(crate) registry: &'static str,
    pub(crate) caller: &'static str,
    pub(crate) trials: Vec<Figures>,
    /// Why there are none, or what went wrong with some.
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

/// Runs what `options` ask for, and prints it.
pub(crate) fn run(options: Options) -> Result<(), BoxError> {
    if options.list {
        return report::list(&options);
    }
    crate::install_cryptography();
    let options = Arc::new(options);
    let events = options.events()?;
    let (mut cells, mut plan) = (Vec::new(), Vec::new());
    for &event in &events {
        enter(event, &options, &mut cells, &mut plan)?;
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

/// Enters the cells of an event, and the trials that can be run.
fn enter(
    event: Event,
    options: &Arc<Options>,
    cells: &mut Vec<Cell>,
    plan: &mut Vec<Planned>,
) -> Result<(), BoxError> {
    let mut is_there = false;
    for registry in options.registries()? {
        for caller in options.callers()? {
            // A whole set comes from no registry, and so is measured once.
            let is_whole = event == Event::WholeSet;
            if is_whole && (is_there || caller.name() != goals::OURS) {
                continue;
            }
            let fits = registry.knows(event) && caller.reads(registry.name(), event);
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

/// What is to be run, and where its figures go.
struct Planned {
    cell: usize,
    setup: Setup,
}

impl Planned {
    /// How often.
    fn trials(&self) -> u32 {
        // One has hundreds of changes.
        if self.setup.event == Event::Churn { 1 } else { self.setup.options.trials }
    }
}

/// An error where callers saw one that they must not see, or where something could not be run.
fn verdict(plan: &[Planned], cells: &[Cell]) -> Result<(), BoxError> {
    let failed: usize =
        plan.iter().map(|one| one.trials() as usize - cells[one.cell].trials.len()).sum();
    if 0 < failed {
        return Err(format!("{failed} trials could not be run").into());
    }
    let unseen = |cell: &&Cell| cell.caller == goals::OURS && cell.event.is_to_be_unseen();
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
    // Several runs on one machine keep to different addresses.
    let base = 64 + u8::try_from(process::id() % 128)?;
    let (small, large): (Vec<_>, Vec<_>) =
        plan.iter().partition(|planned| !planned.setup.event.is_large());
    let total: u32 = plan.iter().map(Planned::trials).sum();
    let mut progress = Progress { origin: Origin::now(), said: Duration::ZERO, done: 0, total };
    for (planned, parallel) in [(small, options.parallel), (large, 1)] {
        let mut lanes: VecDeque<Lane> = (0..parallel).map(|number| Lane { base, number }).collect();
        let mut running = JoinSet::new();
        // Events and callers take turns, so that whatever else the machine does is shared among them.
        for trial in 0..options.trials {
            for one in planned.iter().filter(|one| trial < one.trials()) {
                if lanes.is_empty() {
                    lanes.push_back(take(&mut running, cells).await?);
                    progress.step();
                }
                let lane = lanes.pop_front().ok_or("a lane is free by now")?;
                let seed = options.seed.wrapping_mul(1_000_003).wrapping_add(trial.into());
                let (cell, setup) = (one.cell, Setup { seed, ..one.setup.clone() });
                running.spawn(async move { (cell, lane, setup.run(lane).await) });
            }
        }
        while !running.is_empty() {
            take(&mut running, cells).await?;
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

/// Waits for a trial, keeps its figures, and gives its lane back.
async fn take(running: &mut JoinSet<Outcome>, cells: &mut [Cell]) -> Result<Lane, BoxError> {
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
        && cell.remarks.len() < REMARKS_MAX
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
    fn errors_fail_a_run_where_callers_of_ours_must_see_none() {
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
