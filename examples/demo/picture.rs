//! The screen as a picture, for the README.

use std::{fmt::Write, fs, path::Path};

use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::{Buffer, Cell},
    style::{Color, Modifier},
};

use crate::{BoxError, args::Args, screen, stats::Stats};

const COLUMNS: u16 = 128;
const ROWS: u16 = 20;
/// The size of one character in pixels.
const WIDTH: f64 = 8.4;
const HEIGHT: f64 = 17.0;

/// Draws the current screen as an SVG.
pub(crate) fn save(path: &Path, args: &Args, stats: &Stats) -> Result<(), BoxError> {
    let mut terminal = Terminal::new(TestBackend::new(COLUMNS, ROWS))?;
    terminal.draw(|frame| screen::draw(frame, args, stats))?;
    fs::write(path, svg(terminal.backend().buffer())?)?;
    println!("drawn: {}", path.display());
    Ok(())
}

fn svg(buffer: &Buffer) -> Result<String, std::fmt::Error> {
    let (width, height) = (f64::from(COLUMNS) * WIDTH, f64::from(ROWS) * HEIGHT);
    let mut svg = String::new();
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         font-family=\"DejaVu Sans Mono, Menlo, Consolas, monospace\" font-size=\"14\" xml:space=\"preserve\">"
    )?;
    writeln!(svg, "<rect width=\"100%\" height=\"100%\" fill=\"#16181d\"/>")?;
    for row in 0..ROWS {
        let cells: Vec<&Cell> = (0..COLUMNS).map(|column| &buffer[(column, row)]).collect();
        let mut column = 0;
        for run in cells.chunk_by(|one, next| look(one) == look(next)) {
            draw_run(&mut svg, run, f64::from(column), f64::from(row))?;
            column += u16::try_from(run.len()).unwrap_or(COLUMNS);
        }
    }
    writeln!(svg, "</svg>")?;
    Ok(svg)
}

/// The style of cells that are drawn together. Words are drawn one by one, so that a font of
/// another width does not move them.
fn look(cell: &Cell) -> (Color, Color, Modifier, bool) {
    (cell.fg, cell.bg, cell.modifier, cell.symbol() == " ")
}

fn draw_run(svg: &mut String, run: &[&Cell], column: f64, row: f64) -> std::fmt::Result {
    let text: String = run.iter().map(|cell| cell.symbol()).collect();
    let (x, y, width) = (column * WIDTH, row * HEIGHT, run.len() as f64 * WIDTH);
    let is_reversed = run[0].modifier.contains(Modifier::REVERSED);
    let (ink, paper) = if is_reversed { (run[0].bg, run[0].fg) } else { (run[0].fg, run[0].bg) };
    if paper != Color::Reset {
        let fill = hex(paper);
        writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{HEIGHT}\" fill=\"{fill}\"/>"
        )?;
    }
    if text.trim().is_empty() {
        return Ok(());
    }
    let weight =
        if run[0].modifier.contains(Modifier::BOLD) { " font-weight=\"bold\"" } else { "" };
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let base = y + HEIGHT * 0.76;
    writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{base:.1}\" textLength=\"{width:.1}\" lengthAdjust=\"spacingAndGlyphs\" fill=\"{}\"{weight}>{text}</text>",
        hex(ink)
    )
}

fn hex(color: Color) -> &'static str {
    match color {
        Color::Green => "#7ec16e",
        Color::Yellow => "#e0b84c",
        Color::Red => "#e06c60",
        Color::Blue => "#4f8fd6",
        Color::Black => "#16181d",
        _ => "#d4d7dd",
    }
}
