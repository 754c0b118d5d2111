//! The live display on a terminal.

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use tokio::time::interval;

use crate::{
    BoxError,
    args::Args,
    canvas::{COLUMNS, Canvas, Color, ROWS},
    stats::{Counts, EndpointCounts, STRETCH, Stats},
};

/// Where the endpoints end and the events begin.
const SPLIT: usize = 64;
const NAME: usize = 24;
const FOOT: usize = ROWS - 4;

/// Draws ten times a second until the run stops.
pub(crate) async fn show(args: Args, stats: Arc<Stats>) -> Result<(), BoxError> {
    // The other screen, without a cursor, and without wrapping: a narrow terminal cuts lines off.
    send("\x1b[?1049h\x1b[?25l\x1b[?7l")?;
    let mut ticks = interval(Duration::from_millis(100));
    while !stats.is_stopped() {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stats.stop_signal.notified() => {}
        }
        send(&draw(&args, &stats).ansi())?;
    }
    send("\x1b[?7h\x1b[?25h\x1b[?1049l")?;
    Ok(())
}

fn send(text: &str) -> io::Result<()> {
    let mut terminal = io::stdout().lock();
    terminal.write_all(text.as_bytes())?;
    terminal.flush()
}

/// One screen.
pub(crate) fn draw(args: &Args, stats: &Stats) -> Canvas {
    let (counts, elapsed) = (stats.lock(), stats.elapsed());
    let mut canvas = Canvas::new();
    draw_progress(&mut canvas, args, elapsed);
    draw_endpoints(&mut canvas, &counts, elapsed);
    draw_events(&mut canvas, &counts);
    draw_callers(&mut canvas, &counts);
    canvas
}

fn draw_progress(canvas: &mut Canvas, args: &Args, elapsed: Duration) {
    let label = format!("{} · {} calls a second ", args.policy_name(), args.rate);
    let ratio = (elapsed.as_secs_f64() / args.duration().as_secs_f64()).min(1.0);
    let start = label.chars().count();
    let length = ((COLUMNS - start) as f64 * ratio) as usize;
    canvas.write(0, 0, COLUMNS, Color::Plain, &label);
    canvas.write(0, start, COLUMNS, Color::Blue, &"█".repeat(length));
}

fn draw_endpoints(canvas: &mut Canvas, counts: &Counts, elapsed: Duration) {
    canvas.frame([1, FOOT - 1], [0, SPLIT - 1], " requests per endpoint over time ");
    let now = (elapsed.as_nanos() / STRETCH.as_nanos()) as usize;
    let most = counts.endpoints.values().flat_map(|endpoint| &endpoint.served_by_stretch).max();
    for (number, endpoint) in counts.endpoints.values().enumerate() {
        let row = 2 + 2 * number;
        if row + 1 < FOOT - 1 {
            draw_endpoint(canvas, row, endpoint, now, most.copied().unwrap_or(1).max(1));
        }
    }
}

fn draw_endpoint(
    canvas: &mut Canvas,
    row: usize,
    endpoint: &EndpointCounts,
    now: usize,
    most: u64,
) {
    let color = match endpoint.state.as_str() {
        "dead" | "gone" | "failed" => Color::Red,
        "hangs" | "drained" => Color::Yellow,
        _ => Color::Green,
    };
    canvas.write(row, 1, NAME, Color::Strong, &endpoint.name);
    canvas.write(row + 1, 1, NAME, color, &endpoint.state);
    let served = format!(" · {}", endpoint.served);
    canvas.write(row + 1, 1 + endpoint.state.len(), NAME, Color::Plain, &served);

    let mut counted = endpoint.served_by_stretch.clone();
    counted.resize(now.max(counted.len()), 0);
    let room = SPLIT - 2 - NAME;
    let shown = &counted[counted.len().saturating_sub(room)..];
    // Sixteen steps high: two rows of eighths.
    let eighths = |count: u64| (count * 16).div_ceil(most) as usize;
    let bar = |eighths: usize| " ▁▂▃▄▅▆▇█".chars().nth(eighths.min(8)).unwrap_or('█');
    let upper: String = shown.iter().map(|&count| bar(eighths(count).saturating_sub(8))).collect();
    let lower: String = shown.iter().map(|&count| bar(eighths(count))).collect();
    canvas.write(row, NAME, SPLIT - 1, color, &upper);
    canvas.write(row + 1, NAME, SPLIT - 1, color, &lower);
}

fn draw_events(canvas: &mut Canvas, counts: &Counts) {
    canvas.frame([1, FOOT - 1], [SPLIT, COLUMNS - 1], " events ");
    let latest = counts.events.len().saturating_sub(FOOT - 3);
    for (number, (at, event)) in counts.events[latest..].iter().enumerate() {
        let line = format!("{:5.1} s {event}", at.as_secs_f64());
        canvas.write(2 + number, SPLIT + 1, COLUMNS - 1, Color::Plain, &line);
    }
}

fn draw_callers(canvas: &mut Canvas, counts: &Counts) {
    canvas.frame([FOOT, ROWS - 1], [0, COLUMNS - 1], " callers ");
    let millis = |quantile| counts.latencies_recent[0].value_at_quantile(quantile) as f64 / 1e3;
    let errors = counts.errors_seen();
    let label = format!("calls {}   errors seen by callers ", counts.calls);
    let color = if errors == 0 { Color::Green } else { Color::Red };
    let end = COLUMNS - 1;
    canvas.write(FOOT + 1, 2, end, Color::Plain, &label);
    canvas.write(FOOT + 1, 2 + label.len(), end, color, &errors.to_string());
    let latency = format!("latency now: p50 {:.1} ms, p99 {:.1} ms", millis(0.5), millis(0.99));
    canvas.write(FOOT + 2, 2, end, Color::Plain, &latency);
}
