//! The format of the tables.

use std::fmt::Display;

const NAME_WIDTH: usize = 38;
const CELL_WIDTH: usize = 11;

/// Prints the name of a part of the table and a note on it.
pub(crate) fn title(title: &str, notes: &str) {
    println!("\n## {title}\n{notes}");
}

/// One line of names above the columns.
pub(crate) fn head(name: &str, columns: &[&str]) {
    println!();
    row(name, columns);
}

/// One line of figures.
pub(crate) fn row(name: &str, cells: &[impl Display]) {
    print!("{name:NAME_WIDTH$}");
    cells.iter().for_each(|cell| print!(" {cell:>CELL_WIDTH$}"));
    println!();
}

/// Formats a duration in the unit that suits it.
pub(crate) fn nanos(nanos: f64) -> String {
    match nanos {
        _ if nanos < 1e3 => format!("{nanos:.1} ns"),
        _ if nanos < 1e6 => format!("{:.2} µs", nanos / 1e3),
        _ => format!("{:.2} ms", nanos / 1e6),
    }
}

/// Formats how many that is per second.
pub(crate) fn rate(nanos: f64) -> String {
    let rate = 1e9 / nanos;
    match rate {
        _ if 1e6 <= rate => format!("{:.2} M/s", rate / 1e6),
        _ => format!("{:.1} k/s", rate / 1e3),
    }
}

/// A target that a figure must not exceed.
pub(crate) fn at_most(what: &str, figure: f64, limit: f64, unit: &str) {
    target(what, figure, figure <= limit, &format!("at most {limit} {unit}"));
}

/// A target that a figure must reach.
pub(crate) fn at_least(what: &str, figure: f64, limit: f64, unit: &str) {
    target(what, figure, limit <= figure, &format!("at least {limit} {unit}"));
}

fn target(what: &str, figure: f64, is_met: bool, limit: &str) {
    let verdict = if is_met { "met" } else { "MISSED" };
    println!("{verdict:7} {what}: {figure:.2} ({limit})");
}

/// Formats a number with separated thousands.
pub(crate) fn thousands(number: usize) -> String {
    if number < 1_000 {
        number.to_string()
    } else {
        format!("{},{:03}", number / 1_000, number % 1_000)
    }
}
