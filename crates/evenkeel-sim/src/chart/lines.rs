//! A chart of lines.

use plotters::backend::DrawingBackend;

use super::{
    Canvas, Chart, Drawn, FAINT, INK, Stands,
    axis::{Axis, label},
    colour, width_of,
};

/// One line of a chart.
#[derive(Clone, Debug)]
pub struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

impl Line {
    /// A line through these points, from left to right.
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        Self { name: name.into(), points: points.into_iter().collect() }
    }
}

/// A chart of lines, with axes and a legend.
#[derive(Clone, Debug)]
pub struct Lines {
    title: String,
    x: String,
    y: String,
    is_x_log: bool,
    is_y_log: bool,
    lines: Vec<Line>,
    marks: Vec<(String, f64)>,
}

const HEIGHT: f64 = 420.0;
const PLOT: (f64, f64) = (70.0, 600.0);
const TOP: f64 = 46.0;
const BOTTOM: f64 = HEIGHT - 56.0;

impl Lines {
    /// An empty chart with its title and the titles of its axes.
    pub fn new(title: impl Into<String>, x: impl Into<String>, y: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            x: x.into(),
            y: y.into(),
            is_x_log: false,
            is_y_log: false,
            lines: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// Makes the x axis logarithmic. Default: linear.
    #[must_use]
    pub fn log_x(mut self) -> Self {
        self.is_x_log = true;
        self
    }

    /// Makes the y axis logarithmic. Default: linear.
    #[must_use]
    pub fn log_y(mut self) -> Self {
        self.is_y_log = true;
        self
    }

    /// Adds a line.
    #[must_use]
    pub fn line(mut self, line: Line) -> Self {
        self.lines.push(line);
        self
    }

    /// Marks a value with a horizontal line.
    #[must_use]
    pub fn mark(mut self, name: impl Into<String>, level: f64) -> Self {
        self.marks.push((name.into(), level));
        self
    }

    fn axes(&self) -> (Axis, Axis) {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let levels = self.marks.iter().map(|mark| mark.1);
        let x = Axis::over(points().map(|point| point.0), self.is_x_log, false, PLOT);
        let values = points().map(|point| point.1).chain(levels);
        (x, Axis::over(values, self.is_y_log, true, (BOTTOM, TOP)))
    }

    fn draw_frame<B: DrawingBackend>(
        &self,
        canvas: &Canvas<'_, B>,
        x: &Axis,
        y: &Axis,
    ) -> Drawn<B> {
        canvas.text(&self.title, (PLOT.0, 20.0), Stands::Left, 15, true)?;
        for tick in y.ticks() {
            let at = y.at(tick);
            canvas.line(&[(PLOT.0, at), (PLOT.1, at)], FAINT, 1)?;
            canvas.text(&label(tick), (PLOT.0 - 6.0, at), Stands::Right, 12, false)?;
        }
        for tick in x.ticks() {
            let at = x.at(tick);
            canvas.line(&[(at, BOTTOM), (at, BOTTOM + 4.0)], INK, 1)?;
            canvas.text(&label(tick), (at, BOTTOM + 14.0), Stands::Middle, 12, false)?;
        }
        canvas.line(&[(PLOT.0, TOP), (PLOT.0, BOTTOM), (PLOT.1, BOTTOM)], INK, 1)?;
        let middle = f64::midpoint(PLOT.0, PLOT.1);
        canvas.text(&self.x, (middle, HEIGHT - 18.0), Stands::Middle, 12, false)?;
        canvas.text(&self.y, (8.0, TOP - 10.0), Stands::Left, 12, false)
    }
}

impl Chart for Lines {
    fn size(&self) -> (u32, u32) {
        let names = self.lines.iter().map(|line| width_of(&line.name));
        let legend =
            names.chain(self.marks.iter().map(|mark| width_of(&mark.0))).fold(0.0, f64::max);
        ((PLOT.1 + 60.0 + legend) as u32, HEIGHT as u32)
    }

    fn draw<B: DrawingBackend>(&self, canvas: &Canvas<'_, B>) -> Drawn<B> {
        let (x, y) = self.axes();
        self.draw_frame(canvas, &x, &y)?;
        for (name, level) in &self.marks {
            let at = y.at(*level);
            let dashes = (0..).map(|dash| PLOT.0 + 10.0 * f64::from(dash));
            for from in dashes.take_while(|from| *from < PLOT.1 - 4.0) {
                canvas.line(&[(from, at), (from + 5.0, at)], INK, 1)?;
            }
            canvas.text(name, (PLOT.1 + 8.0, at), Stands::Left, 12, false)?;
        }
        for (index, line) in self.lines.iter().enumerate() {
            let is_good = |point: &&(f64, f64)| {
                let fits = |value: f64, is_log: bool| value.is_finite() && (!is_log || 0.0 < value);
                fits(point.0, self.is_x_log) && fits(point.1, self.is_y_log)
            };
            let points =
                line.points.iter().filter(is_good).map(|point| (x.at(point.0), y.at(point.1)));
            let points: Vec<_> = points.collect();
            if 1 < points.len() {
                canvas.line(&points, colour(index), 2)?;
            }
            // A line of few points marks each of them.
            if points.len() <= 20 {
                for (px, py) in points {
                    canvas.rectangle((px - 2.5, py - 2.5), (px + 2.5, py + 2.5), colour(index))?;
                }
            }
        }
        let names = self.lines.iter().map(|line| line.name.as_str());
        canvas.legend(names, (PLOT.1 + 16.0, TOP + 8.0))
    }
}
