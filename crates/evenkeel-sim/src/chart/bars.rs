//! A chart of horizontal bars, because the names of policies are long.

use plotters::backend::DrawingBackend;

use super::{
    Canvas, Chart, Drawn, FAINT, INK, Stands,
    axis::{Axis, label},
    colour, width_of,
};

/// A bar chart: one or more bars for each name.
#[derive(Clone, Debug)]
pub struct Bars {
    title: String,
    x: String,
    series: Vec<String>,
    rows: Vec<(String, Vec<f64>)>,
    is_log: bool,
    marks: Vec<(String, f64)>,
    most: f64,
}

const BAR: f64 = 11.0;
const GAP: f64 = 9.0;
const PLOT: f64 = 430.0;
const TOP: f64 = 44.0;

impl Bars {
    /// An empty chart. `series` names the bars of each row.
    pub fn new<S: Into<String>>(
        title: impl Into<String>,
        x: impl Into<String>,
        series: impl IntoIterator<Item = S>,
    ) -> Self {
        Self {
            title: title.into(),
            x: x.into(),
            series: series.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
            is_log: false,
            marks: Vec::new(),
            most: f64::INFINITY,
        }
    }

    /// Makes the axis logarithmic. Default: linear.
    #[must_use]
    pub fn log(mut self) -> Self {
        self.is_log = true;
        self
    }

    /// Adds a row.
    #[must_use]
    pub fn row(mut self, name: impl Into<String>, values: impl IntoIterator<Item = f64>) -> Self {
        self.rows.push((name.into(), values.into_iter().collect()));
        self
    }

    /// Marks a value with a vertical line.
    #[must_use]
    pub fn mark(mut self, name: impl Into<String>, level: f64) -> Self {
        self.marks.push((name.into(), level));
        self
    }

    /// Cuts longer bars off, so that the shorter ones stay visible. Default: no limit.
    #[must_use]
    pub fn most(mut self, most: f64) -> Self {
        self.most = most;
        self
    }

    fn left(&self) -> f64 {
        16.0 + self.rows.iter().map(|row| width_of(&row.0)).fold(40.0, f64::max)
    }

    fn bottom(&self) -> f64 {
        TOP + self.rows.len() as f64 * self.row_height()
    }

    fn row_height(&self) -> f64 {
        BAR * self.series.len() as f64 + GAP
    }
}

impl Chart for Bars {
    fn size(&self) -> (u32, u32) {
        let is_one = self.series.len() == 1;
        let legend = self.series.iter().map(|name| width_of(name) + 40.0).fold(0.0, f64::max);
        let width = self.left() + PLOT + 70.0 + if is_one { 0.0 } else { legend };
        (width as u32, (self.bottom() + 52.0) as u32)
    }

    fn draw<B: DrawingBackend>(&self, canvas: &Canvas<'_, B>) -> Drawn<B> {
        let (left, bottom) = (self.left(), self.bottom());
        let values = self.rows.iter().flat_map(|row| row.1.iter().copied());
        let values =
            values.chain(self.marks.iter().map(|mark| mark.1)).map(|value| value.min(self.most));
        let axis = Axis::over(values, self.is_log, true, (left, left + PLOT));
        canvas.text(&self.title, (8.0, 18.0), Stands::Left, 15, true)?;
        for tick in axis.ticks() {
            let at = axis.at(tick);
            canvas.line(&[(at, TOP), (at, bottom)], FAINT, 1)?;
            canvas.text(&label(tick), (at, bottom + 12.0), Stands::Middle, 12, false)?;
        }
        for (index, (name, values)) in self.rows.iter().enumerate() {
            let top = TOP + GAP / 2.0 + index as f64 * self.row_height();
            let middle = top + BAR * self.series.len() as f64 / 2.0;
            canvas.text(name, (left - 8.0, middle), Stands::Right, 12, false)?;
            for (bar, value) in values.iter().enumerate() {
                let y = top + BAR * bar as f64;
                let end = axis.at(*value).max(left + 1.0);
                canvas.rectangle((left, y + 1.0), (end, y + BAR - 1.0), colour(bar))?;
                canvas.text(&label(*value), (end + 4.0, y + BAR / 2.0), Stands::Left, 10, false)?;
            }
        }
        for (name, level) in &self.marks {
            let at = axis.at(*level);
            canvas.line(&[(at, TOP - 4.0), (at, bottom)], INK, 1)?;
            canvas.text(name, (at, TOP - 11.0), Stands::Middle, 11, false)?;
        }
        canvas.line(&[(left, TOP), (left, bottom), (left + PLOT, bottom)], INK, 1)?;
        canvas.text(&self.x, (left + PLOT / 2.0, bottom + 34.0), Stands::Middle, 12, false)?;
        if 1 < self.series.len() {
            let names = self.series.iter().map(String::as_str);
            canvas.legend(names, (left + PLOT + 66.0, TOP + 10.0))?;
        }
        Ok(())
    }
}
