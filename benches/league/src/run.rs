//! A whole run: its trials, their parallelism, and the progress.

use std::{collections::VecDeque, process, sync::Arc, time::Duration};

use evenkeel_rig::{busy::Busy, clock::Origin};
use tokio::task::JoinSet;

use crate::{
    BoxError,
    contestants::Contestant,
    fault::Fault,
    figures::{Cell, Figures},
    goals,
    options::Options,
    report,
    scene::Lane,
    trial::{PHASE, Record, Setup, WARM_UP},
    wire::Wire,
};

/// About how long the processes of a trial collect_trial to start and end.
const OVERHEAD: Duration = Duration::from_millis(400);

/// How often the progress is printed.
const PROGRESS_EVERY: Duration = Duration::from_secs(15);

/// At most this many remarks of a cell are kept.
const MAX_REMARKS: usize = 3;

/// Runs the trials that `options` choose, and prints the results.
pub(crate) fn run(options: &Options) -> Result<(), BoxError> {
    let (faults, contestants) = (options.faults()?, options.contestants()?);
    if options.list {
        report::list(&faults, &contestants);
        return Ok(());
    }
    let mut cells = Vec::new();
    let mut plan = Vec::new();
    for &fault in &faults {
        for contestant in &contestants {
            let reason = contestant.missing().or(contestant.unable(fault).map(str::to_owned));
            if reason.is_none() {
                plan.push((cells.len(), contestant.clone(), fault));
            }
            cells.push(Cell {
                contestant: contestant.name(),
                fault: fault.name(),
                trials: Vec::new(),
                remarks: reason.into_iter().collect(),
            });
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let busy = Busy::now();
    runtime.block_on(all_trials(options, &plan, &mut cells))?;
    let busy = busy.zip(Busy::now()).and_then(|(before, after)| after.since(before));

    report::print(options, &faults, &contestants, &cells, busy);
    goals::print(&faults, &cells, options.markdown);
    if let Some(path) = &options.json {
        report::write_json(path, options, &cells)?;
    }
    let failed: usize =
        plan.iter().map(|(cell, ..)| options.trials as usize - cells[*cell].trials.len()).sum();
    if 0 < failed { Err(format!("{failed} trials could not be run").into()) } else { Ok(()) }
}

type Planned = (usize, Arc<dyn Contestant>, Fault);

async fn all_trials(
    options: &Options,
    plan: &[Planned],
    cells: &mut [Cell],
) -> Result<(), BoxError> {
    // Several runs on one machine use different addresses.
    let base = 64 + u8::try_from(process::id() % 128)?;
    let wire = Wire::watch(base)?;
    let mut lanes: VecDeque<Lane> =
        (0..options.parallel).map(|number| Lane { base, number }).collect();
    let total = plan.len() * options.trials as usize;
    let work: Duration = plan.iter().map(|(.., fault)| estimate_duration(*fault)).sum::<Duration>();
    let estimate = work * options.trials / u32::from(options.parallel);
    eprintln!(
        "{total} trials, {} at a time, {} calls a second each: about {:.0} min",
        options.parallel,
        options.rate,
        estimate.as_secs_f64() / 60.0
    );

    let (origin, mut said, mut done) = (Origin::now(), Duration::ZERO, 0);
    let mut running = JoinSet::new();
    // Contestants collect_trial turns, so that other work on the machine affects all of them alike.
    for trial in 0..options.trials {
        for (cell, contestant, fault) in plan {
            if lanes.is_empty() {
                lanes.push_back(collect_trial(&mut running, cells).await?);
                done += 1;
            }
            if said + PROGRESS_EVERY <= origin.elapsed() {
                said = origin.elapsed();
                eprintln!("{:5.0} s: {done} of {total} trials", said.as_secs_f64());
            }
            let lane = lanes.pop_front().ok_or("a lane is free by now")?;
            let (contestant, fault, rate) = (contestant.clone(), *fault, options.rate);
            let seed = options.seed.wrapping_mul(1_000_003).wrapping_add(u64::from(trial));
            let setup = Setup { contestant, fault, rate, seed };
            let (cell, wire) = (*cell, wire.clone());
            running.spawn(async move {
                let result = setup.run(lane, &wire).await;
                (cell, lane, result.map(|record| (Figures::of(&record, fault), remarks(&record))))
            });
        }
    }
    while !running.is_empty() {
        collect_trial(&mut running, cells).await?;
    }
    eprintln!("{:5.0} s: done", origin.elapsed().as_secs_f64());
    Ok(())
}

type Outcome = (usize, Lane, Result<(Figures, Vec<String>), BoxError>);

/// Waits for a trial, keeps its figures, and frees its lane.
async fn collect_trial(
    running: &mut JoinSet<Outcome>,
    cells: &mut [Cell],
) -> Result<Lane, BoxError> {
    let (cell, lane, result) = running.join_next().await.ok_or("a trial is running")??;
    let cell = &mut cells[cell];
    let remarks = match result {
        Ok((figures, remarks)) => {
            cell.trials.push(figures);
            remarks
        }
        Err(error) => vec![format!("a trial could not be run: {error}")],
    };
    for remark in remarks {
        if !cell.remarks.contains(&remark) && cell.remarks.len() < MAX_REMARKS {
            cell.remarks.push(remark);
        }
    }
    Ok(lane)
}

/// Notes besides the figures: errors before the fault, which the fault did not cause.
fn remarks(record: &Record) -> Vec<String> {
    let early = || record.calls.iter().filter(|call| call.end < record.struck);
    let errors = early().filter_map(|call| call.failure.as_ref());
    let mut remarks: Vec<_> =
        errors.map(|failure| format!("an error before the fault: {failure}")).collect();
    // Every successful call made an attempt.
    let successes = early().filter(|call| call.failure.is_none()).count();
    let attempts = record.attempts.iter().filter(|attempt| attempt.at < record.struck).count();
    if attempts < successes {
        remarks.push("the wire's watcher was too slow: attempts are missing".to_owned());
    }
    remarks
}

fn estimate_duration(fault: Fault) -> Duration {
    let (fault, after) = fault.lasts();
    WARM_UP + PHASE / 2 + fault + after + OVERHEAD
}
