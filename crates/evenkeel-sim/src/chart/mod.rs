//! Charts of results, as SVG and as PNG.
//!
//! Drawn with plotters' shapes and text. The axes are this module's: logarithmic ones have round
//! numbers, and the legend never covers a line. The font is built in, so the same chart gives the
//! same bytes.

mod axis;
mod bars;
mod lines;

use std::{fs, path::Path, sync::Once};

use plotters::{
    backend::{BitMapBackend, DrawingBackend, SVGBackend},
    coord::Shift,
    drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea},
    element::{PathElement, Rectangle, Text},
    style::{
        Color, FontStyle, IntoFont, RGBColor, WHITE, register_font,
        text_anchor::{HPos, Pos, VPos},
    },
};

pub use self::{
    bars::Bars,
    lines::{Line, Lines},
};

/// A chart that can be drawn.
pub trait Chart {
    /// The width and height in pixels.
    fn size(&self) -> (u32, u32);

    /// Draws the chart.
    ///
    /// # Errors
    /// If the canvas does not accept it.
    fn draw<B: DrawingBackend>(&self, canvas: &Canvas<'_, B>) -> Drawn<B>;
}

/// The result of drawing.
pub type Drawn<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Writes a chart as `folder/name.svg`.
///
/// # Errors
/// If it cannot be written.
pub fn write_svg(chart: &impl Chart, folder: &Path, name: &str) -> Result<(), Failure> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(format!("{name}.svg")), to_svg(chart)?)?;
    Ok(())
}

/// Writes a chart as `folder/name.png`, at twice the resolution.
///
/// # Errors
/// If it cannot be written.
pub fn write_png(chart: &impl Chart, folder: &Path, name: &str) -> Result<(), Failure> {
    fs::create_dir_all(folder)?;
    let (width, height) = chart.size();
    let path = folder.join(format!("{name}.png"));
    let area = BitMapBackend::new(&path, (width * SCALE, height * SCALE)).into_drawing_area();
    paint(chart, &area, SCALE)
}

/// A chart as SVG.
///
/// # Errors
/// If it cannot be drawn.
pub fn to_svg(chart: &impl Chart) -> Result<String, Failure> {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, chart.size()).into_drawing_area();
    paint(chart, &area, 1)?;
    drop(area);
    Ok(text)
}

/// Pixels of a PNG for each pixel of an SVG, so that text is sharp.
const SCALE: u32 = 2;

fn paint<B: DrawingBackend>(
    chart: &impl Chart,
    area: &DrawingArea<B, Shift>,
    scale: u32,
) -> Result<(), Failure>
where
    B::ErrorType: 'static,
{
    static FONT: Once = Once::new();
    FONT.call_once(|| {
        let register = |style, bytes| register_font("sans-serif", style, bytes).is_ok();
        let is_read = register(FontStyle::Normal, dejavu::sans::regular())
            && register(FontStyle::Bold, dejavu::sans::bold());
        assert!(is_read, "the font that is built in can be read");
    });
    area.fill(&WHITE)?;
    chart.draw(&Canvas { area, scale: scale as i32 })?;
    area.present()?;
    Ok(())
}

/// A canvas, in pixels of the SVG.
pub struct Canvas<'a, B: DrawingBackend> {
    area: &'a DrawingArea<B, Shift>,
    scale: i32,
}

impl<B: DrawingBackend> std::fmt::Debug for Canvas<'_, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Canvas").field("scale", &self.scale).finish_non_exhaustive()
    }
}

/// A point on a canvas, from its upper left corner.
type Point = (f64, f64);

/// How a text is aligned to its point.
#[derive(Clone, Copy)]
enum Stands {
    Left,
    Middle,
    Right,
}

const INK: RGBColor = RGBColor(40, 40, 40);
const FAINT: RGBColor = RGBColor(222, 222, 222);

/// Colours that are easy to tell apart; the first ones are safe for colour-blind readers (Okabe and
/// Ito 2008, extended).
const COLOURS: [RGBColor; 16] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
    RGBColor(150, 80, 30),
    RGBColor(120, 60, 160),
    RGBColor(190, 180, 40),
    RGBColor(0, 90, 60),
    RGBColor(240, 120, 120),
    RGBColor(0, 0, 0),
    RGBColor(150, 200, 120),
    RGBColor(130, 0, 40),
    RGBColor(170, 150, 230),
];

fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

impl<B: DrawingBackend> Canvas<'_, B> {
    fn at(&self, (x, y): Point) -> (i32, i32) {
        let scale = f64::from(self.scale);
        ((x * scale).round() as i32, (y * scale).round() as i32)
    }

    fn text(&self, text: &str, at: Point, stands: Stands, size: i32, is_bold: bool) -> Drawn<B> {
        let across = match stands {
            Stands::Left => HPos::Left,
            Stands::Middle => HPos::Center,
            Stands::Right => HPos::Right,
        };
        let style = if is_bold { FontStyle::Bold } else { FontStyle::Normal };
        let font = ("sans-serif", size * self.scale).into_font().style(style);
        let style = font.color(&INK).pos(Pos::new(across, VPos::Center));
        self.area.draw(&Text::new(text.to_owned(), self.at(at), style))
    }

    fn line(&self, points: &[Point], colour: RGBColor, width: u32) -> Drawn<B> {
        let points: Vec<_> = points.iter().map(|point| self.at(*point)).collect();
        let style = colour.stroke_width(width * self.scale as u32);
        self.area.draw(&PathElement::new(points, style))
    }

    fn rectangle(&self, from: Point, to: Point, colour: RGBColor) -> Drawn<B> {
        self.area.draw(&Rectangle::new([self.at(from), self.at(to)], colour.filled()))
    }

    /// The names and their colours, one below the other.
    fn legend<'n>(&self, names: impl Iterator<Item = &'n str>, (x, y): Point) -> Drawn<B> {
        for (index, name) in names.enumerate() {
            let y = y + 18.0 * index as f64;
            self.rectangle((x, y - 5.0), (x + 16.0, y + 4.0), colour(index))?;
            self.text(name, (x + 22.0, y), Stands::Left, 12, false)?;
        }
        Ok(())
    }
}

/// The approximate width of a text of size 12.
fn width_of(text: &str) -> f64 {
    7.2 * text.chars().count() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Lines {
        let line = |name: &str| Line::new(name, (1..50).map(|x| (f64::from(x), f64::from(x * x))));
        Lines::new("squares", "x", "y").log_y().line(line("a")).line(line("b"))
    }

    #[test]
    fn the_same_chart_gives_the_same_bytes() {
        assert_eq!(to_svg(&lines()).unwrap(), to_svg(&lines()).unwrap());
    }

    #[test]
    fn a_chart_without_points_is_drawn_too() {
        assert!(to_svg(&Lines::new("nothing", "x", "y")).unwrap().contains("nothing"));
        let odd = [(f64::NAN, 1.0), (1.0, f64::INFINITY), (2.0, 0.0)];
        let chart = Lines::new("odd", "x", "y").log_y().line(Line::new("a", odd));
        assert!(to_svg(&chart).unwrap().contains("odd"));
    }

    #[test]
    fn a_chart_is_written_as_svg_and_as_png() {
        let folder = tempfile::tempdir().unwrap();
        write_svg(&lines(), folder.path(), "squares").unwrap();
        write_png(&lines(), folder.path(), "squares").unwrap();
        let png = fs::read(folder.path().join("squares.png")).unwrap();
        assert!(png.starts_with(b"\x89PNG"));
        assert!(fs::read_to_string(folder.path().join("squares.svg")).unwrap().starts_with("<svg"));
    }
}
