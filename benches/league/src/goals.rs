//! evenkeel's goals and whether it met them, and the ranking of the contestants.

use crate::{
    fault::Fault,
    figures::{Cell, Figures},
};

/// The contestant that the goals are for, and the one that stands for doing nothing.
const OURS: &str = "ours";
const PLAIN: &str = "hyper";

/// The budget of our retries: a share of the calls, and a minimum over ten seconds.
const BUDGET_SHARE: f64 = 0.2;
const BUDGET_FLOOR: f64 = 100.0;

/// Figures that differ by less count as equal: the precision of the watcher's clock.
const TIE_MILLIS: f64 = 5.0;
const TIE_SHARE: f64 = 0.000_5;

struct Goal {
    what: &'static str,
    figure: f64,
    limit: f64,
}

/// Prints one line for each goal, and one for each row that says whether ours is first.
pub(crate) fn print(faults: &[Fault], cells: &[Cell], is_markdown: bool) {
    let item = if is_markdown { "- " } else { "" };
    let of = |fault: Fault, contestant: &str| {
        let is_it = |c: &&Cell| c.fault == fault.name() && c.contestant == contestant;
        cells.iter().find(is_it).filter(|cell| !cell.trials.is_empty())
    };
    println!("\n## Goals for ours, in the worst of the trials\n");
    for &fault in faults {
        let Some(ours) = of(fault, OURS) else { continue };
        for Goal { what, figure, limit } in goals(fault, ours, of(fault, PLAIN)) {
            let verdict = if figure <= limit { "met" } else { "MISSED" };
            println!(
                "{item}{verdict:7} {:6} {what}: {} (at most {})",
                fault.name(),
                short(figure),
                short(limit)
            );
        }
    }
    println!("\n## Ranking\n");
    for &fault in faults {
        let Some(ours) = of(fault, OURS) else { continue };
        let all: Vec<&Cell> = cells
            .iter()
            .filter(|cell| cell.fault == fault.name() && !cell.trials.is_empty())
            .collect();
        if 1 < all.len() {
            rows(fault).into_iter().for_each(|row| row.print(item, fault, ours, &all));
        }
    }
}

fn goals(fault: Fault, ours: &Cell, plain: Option<&Cell>) -> Vec<Goal> {
    let worst = |figure: &dyn Fn(&Figures) -> f64| {
        ours.percentiles(figure).map_or(f64::INFINITY, |percentiles| percentiles.worst)
    };
    let errors = || Goal { what: "errors", figure: worst(&|f| f.errors as f64), limit: 0.0 };
    let stop = |limit| Goal { what: "ms to the last attempt", figure: worst(&|f| f.stop), limit };
    match fault {
        Fault::GracefulStop => vec![errors(), stop(100.0)],
        Fault::Crash => {
            // The first attempt reveals the fault. The wait until it comes is not a contestant's
            // fault.
            let after = worst(&|f| f.after.saturating_sub(1) as f64);
            let span = worst(&|f| f.span);
            vec![
                errors(),
                Goal { what: "attempts after the one that sees it", figure: after, limit: 1.0 },
                Goal { what: "ms from seeing it to the last attempt", figure: span, limit: 50.0 },
                Goal { what: "ms from the fault to it", figure: worst(&|f| f.stop), limit: 50.0 },
            ]
        }
        Fault::SilentNew => vec![errors(), stop(500.0)],
        Fault::SilentHttp1 | Fault::SilentHttp2 => vec![errors(), stop(2_000.0)],
        Fault::Fails | Fault::Slow | Fault::Hangs => {
            let figure = worst(&|f| 100.0 * f.seen() as f64 / f.calls as f64);
            vec![stop(1_000.0), Goal { what: "% of calls that see it", figure, limit: 1.0 }]
        }
        Fault::Flaps => plain.map_or_else(Vec::new, |plain| {
            let share = |cell: &Cell| 100.0 * cell.share(|f| f.errors);
            vec![Goal {
                what: "% errors, against hyper's",
                figure: share(ours),
                limit: share(plain),
            }]
        }),
        Fault::AllFail => vec![
            Goal { what: "ms until no call fails", figure: worst(&|f| f.last_error), limit: 1e3 },
            Goal {
                what: "ms until all have their share",
                figure: worst(&|f| f.regained.unwrap_or(f64::INFINITY)),
                limit: 1e3,
            },
            Goal {
                what: "retries in hundredths of the budget",
                figure: worst(&|f| {
                    let budget = BUDGET_SHARE * f.calls_begun as f64 + BUDGET_FLOOR;
                    100.0 * f.extra_attempts.max(0.0) / budget
                }),
                // At the fault's end, one or two attempts may be counted without their call.
                limit: 101.0,
            },
        ],
        Fault::RollingRestart => vec![errors()],
    }
}

/// A figure that contestants are compared by: less is better.
struct Row {
    what: &'static str,
    unit: &'static str,
    tie: f64,
    figure: fn(&Cell) -> f64,
    is_compared: fn(&Cell) -> bool,
}

fn rows(fault: Fault) -> Vec<Row> {
    let mut rows = vec![Row {
        what: "errors",
        unit: "%",
        tie: 100.0 * TIE_SHARE,
        figure: |cell| 100.0 * cell.share(|figures| figures.errors),
        is_compared: |_| true,
    }];
    rows.push(Row {
        what: "calls that see it",
        unit: "%",
        tie: 100.0 * TIE_SHARE,
        figure: |cell| 100.0 * cell.share(Figures::seen),
        is_compared: |_| true,
    });
    if fault.has_one_target() {
        rows.push(Row {
            what: "last attempt, median",
            unit: "ms",
            tie: TIE_MILLIS,
            figure: |cell| median(cell, |figures| figures.stop),
            is_compared: |_| true,
        });
    }
    if fault != Fault::RollingRestart {
        rows.push(Row {
            what: "share regained, median",
            unit: "ms",
            tie: 10.0 * TIE_MILLIS,
            figure: |cell| median(cell, |figures| figures.regained.unwrap_or(f64::INFINITY)),
            is_compared: |cell| has_left(cell),
        });
    }
    rows
}

fn median(cell: &Cell, figure: fn(&Figures) -> f64) -> f64 {
    cell.percentiles(figure).map_or(f64::INFINITY, |percentiles| percentiles.p50)
}

/// Whether the contestant left the endpoint: if it did not, it cannot return to it.
fn has_left(cell: &Cell) -> bool {
    let share = |figures: &Figures| figures.share_at_target;
    cell.percentiles(share).is_some_and(|shares| shares.p50 < 0.5)
}

impl Row {
    fn print(&self, item: &str, fault: Fault, ours: &Cell, all: &[&Cell]) {
        let Self { what, unit, tie, figure, is_compared } = self;
        let own = figure(ours);
        let all = all.iter().copied().filter(|cell| is_compared(cell));
        let first = all.min_by(|a, b| figure(a).total_cmp(&figure(b)));
        let Some(first) = first else { return };
        let name = fault.name();
        if own <= figure(first) + tie {
            println!("{item}first     {name:6} {what}: {} {unit}", short(own));
        } else {
            let (best, best_name) = (short(figure(first)), first.contestant);
            println!(
                "{item}NOT FIRST {name:6} {what}: {} {unit}; {best_name} {best} {unit}",
                short(own)
            );
        }
    }
}

/// Formats a figure with a sensible number of decimals.
fn short(figure: f64) -> String {
    match figure {
        _ if figure.is_infinite() => "never".to_owned(),
        _ if figure.abs() < 10.0 && figure.fract() != 0.0 => format!("{figure:.2}"),
        _ => format!("{figure:.0}"),
    }
}
