//! Tables: plain for terminals, Markdown for documents.

use std::fmt::Write;

use super::{PhaseReport, Report};

/// Rows of cells below a header.
#[derive(Clone, Debug, Default)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    #[must_use]
    pub fn new<S: Into<String>>(head: impl IntoIterator<Item = S>) -> Self {
        Self { head: head.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Formats the table for a terminal: the first column is aligned left, the others right.
    #[must_use]
    pub fn plain(&self) -> String {
        let width = |column: usize| {
            let cells = std::iter::once(&self.head).chain(&self.rows);
            cells
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.head.len()).map(width).collect();
        let mut text = String::new();
        for row in std::iter::once(&self.head).chain(&self.rows) {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let pad = " ".repeat(width - cell.chars().count());
                line +=
                    &if column == 0 { format!("{cell}{pad}") } else { format!("  {pad}{cell}") };
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }

    /// Formats the table as Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        text += &line(&self.head);
        let rules = (0..self.head.len()).map(|column| if column == 0 { "---" } else { "---:" });
        let _ = writeln!(text, "| {} |", rules.collect::<Vec<_>>().join(" | "));
        self.rows.iter().for_each(|row| text += &line(row));
        text
    }
}

/// All runs of a scenario, one row per phase of each run.
#[must_use]
pub fn to_table(reports: &[Report]) -> Table {
    let has_steps = reports.iter().any(|report| 1 < report.phases.len());
    let mut head = vec!["policy"];
    if has_steps {
        head.push("step");
    }
    head.extend([
        "calls",
        "mean ms",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "errors",
        "worst share",
        "in flight max",
        "connections",
        "wasted",
    ]);
    let mut table = Table::new(head);
    for report in reports {
        for phase in &report.phases {
            let mut cells = vec![report.label.clone()];
            if has_steps {
                cells.push(phase.name.clone());
            }
            cells.extend(cells_of(report, phase));
            table.row(cells);
        }
    }
    table
}

fn cells_of(report: &Report, phase: &PhaseReport) -> [String; 11] {
    [
        phase.calls.to_string(),
        millis(phase.mean),
        millis(phase.p50),
        millis(phase.p90),
        millis(phase.p99),
        millis(phase.p999),
        percent(phase.error_share()),
        percent(phase.worst_share),
        phase.in_flight_max.to_string(),
        format!("{:.0}", report.connections_mean),
        percent(if phase.attempts == 0 {
            0.0
        } else {
            phase.wasted as f64 / phase.attempts as f64
        }),
    ]
}

/// Formats milliseconds with three digits.
pub(crate) fn millis(millis: f64) -> String {
    match millis {
        _ if 100.0 <= millis => format!("{millis:.0}"),
        _ if 10.0 <= millis => format!("{millis:.1}"),
        _ => format!("{millis:.2}"),
    }
}

/// Formats a share as a percentage.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        _ if percent == 0.0 => "0 %".into(),
        _ if percent < 0.1 => format!("{percent:.3} %"),
        _ if percent < 10.0 => format!("{percent:.2} %"),
        _ => format!("{percent:.1} %"),
    }
}
