//! A grid of characters, and how it becomes a terminal's screen or a picture.

use std::fmt::Write;

pub(crate) const COLUMNS: usize = 116;
pub(crate) const ROWS: usize = 20;

/// The width and the height of one character in a picture, in pixels.
const WIDTH: f64 = 8.4;
const HEIGHT: f64 = 17.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Color {
    Plain,
    Strong,
    Green,
    Yellow,
    Red,
    Blue,
}

impl Color {
    fn ansi(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Strong => "0;1",
            Self::Green => "0;32",
            Self::Yellow => "0;33",
            Self::Red => "0;31",
            Self::Blue => "0;34",
        }
    }

    fn hex(self) -> &'static str {
        match self {
            Self::Plain | Self::Strong => "#d4d7dd",
            Self::Green => "#7ec16e",
            Self::Yellow => "#e0b84c",
            Self::Red => "#e06c60",
            Self::Blue => "#4f8fd6",
        }
    }
}

pub(crate) struct Canvas {
    cells: Vec<[(char, Color); COLUMNS]>,
}

impl Canvas {
    pub(crate) fn new() -> Self {
        Self { cells: vec![[(' ', Color::Plain); COLUMNS]; ROWS] }
    }

    /// Writes `text`, up to the column `end`. What lies outside is cut off.
    pub(crate) fn write(
        &mut self,
        row: usize,
        column: usize,
        end: usize,
        color: Color,
        text: &str,
    ) {
        let Some(cells) = self.cells.get_mut(row) else { return };
        let cells = cells.iter_mut().take(end).skip(column);
        cells.zip(text.chars()).for_each(|(cell, character)| *cell = (character, color));
    }

    /// Draws a frame with a title around rows and columns, the last ones included.
    pub(crate) fn frame(&mut self, rows: [usize; 2], columns: [usize; 2], title: &str) {
        let ([top, bottom], [left, right]) = (rows, columns);
        let line = "─".repeat(right - left - 1);
        self.write(top, left, right + 1, Color::Plain, &format!("┌{line}┐"));
        self.write(bottom, left, right + 1, Color::Plain, &format!("└{line}┘"));
        for row in top + 1..bottom {
            self.write(row, left, right + 1, Color::Plain, "│");
            self.write(row, right, right + 1, Color::Plain, "│");
        }
        self.write(top, left + 2, right, Color::Plain, title);
    }

    /// What a terminal is sent: each row at its place.
    pub(crate) fn ansi(&self) -> String {
        let mut out = String::new();
        for (number, row) in self.cells.iter().enumerate() {
            _ = write!(out, "\x1b[{};1H", number + 1);
            for run in row.chunk_by(|one, next| one.1 == next.1) {
                let text: String = run.iter().map(|cell| cell.0).collect();
                _ = write!(out, "\x1b[{}m{text}", run[0].1.ansi());
            }
        }
        out + "\x1b[0m"
    }

    /// The same as a picture. Words are placed one by one, so that a font of another width moves none.
    pub(crate) fn svg(&self) -> String {
        let (width, height) = (COLUMNS as f64 * WIDTH, ROWS as f64 * HEIGHT);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
             font-family=\"DejaVu Sans Mono, Menlo, Consolas, monospace\" font-size=\"14\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#16181d\"/>\n"
        );
        for (number, row) in self.cells.iter().enumerate() {
            let y = (number as f64 + 0.76) * HEIGHT;
            let mut column = 0;
            for word in
                row.chunk_by(|one, next| one.1 == next.1 && (one.0 == ' ') == (next.0 == ' '))
            {
                let (x, length) = (column as f64 * WIDTH, word.len() as f64 * WIDTH);
                column += word.len();
                if word[0].0 == ' ' {
                    continue;
                }
                let text: String = word.iter().map(|cell| cell.0).collect();
                let text = text.replace('&', "&amp;").replace('<', "&lt;");
                let weight = if word[0].1 == Color::Strong { " font-weight=\"bold\"" } else { "" };
                let fill = word[0].1.hex();
                _ = writeln!(
                    out,
                    "<text x=\"{x:.1}\" y=\"{y:.1}\" textLength=\"{length:.1}\" \
                     lengthAdjust=\"spacingAndGlyphs\" fill=\"{fill}\"{weight}>{text}</text>"
                );
            }
        }
        out + "</svg>\n"
    }
}
