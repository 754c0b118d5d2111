//! The run, live on a terminal.

use std::{sync::Arc, time::Duration};

use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event, KeyCode, KeyModifiers},
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize},
    text::{Line, Span},
    widgets::{Block, Gauge, List, ListItem, Paragraph, Sparkline},
};
use tokio::time::interval;

use crate::{
    BoxError,
    args::Args,
    stats::{Counts, EndpointCounts, STRETCH, Stats},
};

/// Draws ten times a second until the run stops; `q` stops it.
pub(crate) async fn show(args: Args, stats: Arc<Stats>) -> Result<(), BoxError> {
    let mut terminal = ratatui::init();
    let result = draw_until_stopped(&mut terminal, &args, &stats).await;
    ratatui::restore();
    result
}

async fn draw_until_stopped(
    terminal: &mut DefaultTerminal,
    args: &Args,
    stats: &Stats,
) -> Result<(), BoxError> {
    let mut ticks = interval(Duration::from_millis(100));
    while !stats.is_stopped() {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stats.stop_signal.notified() => {}
        }
        while event::poll(Duration::ZERO)? {
            if is_quit(&event::read()?) {
                stats.stop();
            }
        }
        terminal.draw(|frame| draw(frame, args, stats))?;
    }
    Ok(())
}

fn is_quit(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers == KeyModifiers::CONTROL;
    is_interrupt || key.code == KeyCode::Char('q')
}

/// Draws one screen.
pub(crate) fn draw(frame: &mut Frame<'_>, args: &Args, stats: &Stats) {
    let counts = stats.lock();
    let [head, middle, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(4), Constraint::Length(4)])
            .areas(frame.area());
    let [left, right] =
        Layout::horizontal([Constraint::Percentage(62), Constraint::Percentage(38)]).areas(middle);

    draw_progress(frame, head, args, stats.elapsed());
    draw_endpoints(frame, left, &counts, stats.elapsed());
    draw_events(frame, right, &counts);
    draw_callers(frame, foot, &counts);
}

fn draw_progress(frame: &mut Frame<'_>, area: Rect, args: &Args, elapsed: Duration) {
    let label = format!("{} · {} calls a second", args.policy_name(), args.rate);
    let ratio = (elapsed.as_secs_f64() / args.duration().as_secs_f64()).min(1.0);
    let gauge = Gauge::default().gauge_style(Style::new().blue()).label(label).ratio(ratio);
    frame.render_widget(gauge, area);
}

fn draw_endpoints(frame: &mut Frame<'_>, area: Rect, counts: &Counts, elapsed: Duration) {
    let block = Block::bordered().title(" requests per endpoint over time ");
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let room = usize::from(inner.height / 2);
    let shown = counts.endpoints.values().take(room);
    let rows = Layout::vertical(shown.map(|_| Constraint::Length(2))).split(inner);
    let now = (elapsed.as_nanos() / STRETCH.as_nanos()) as usize;
    let most = counts.endpoints.values().flat_map(|endpoint| &endpoint.served_by_stretch).max();
    for (endpoint, row) in counts.endpoints.values().zip(rows.iter()) {
        draw_endpoint(frame, *row, endpoint, now, most.copied().unwrap_or(1));
    }
}

fn draw_endpoint(
    frame: &mut Frame<'_>,
    area: Rect,
    endpoint: &EndpointCounts,
    now: usize,
    most: u64,
) {
    let [name, line] = Layout::horizontal([Constraint::Length(24), Constraint::Min(4)]).areas(area);
    let color = match endpoint.state.as_str() {
        "dead" | "gone" | "failed" => Color::Red,
        "hangs" | "drained" => Color::Yellow,
        _ => Color::Green,
    };
    let text = vec![
        Line::from(endpoint.name.as_str().bold()),
        Line::from(vec![
            Span::styled(endpoint.state.as_str(), color),
            Span::raw(format!(" · {}", endpoint.served)),
        ]),
    ];
    frame.render_widget(Paragraph::new(text), name);

    let mut served = endpoint.served_by_stretch.clone();
    served.resize(now.max(served.len()), 0);
    let visible = served.len().saturating_sub(line.width.into());
    let sparkline =
        Sparkline::default().data(&served[visible..]).max(most).style(Style::new().fg(color));
    frame.render_widget(sparkline, line);
}

fn draw_events(frame: &mut Frame<'_>, area: Rect, counts: &Counts) {
    let room = usize::from(area.height.saturating_sub(2));
    let latest = counts.events.len().saturating_sub(room);
    let lines = counts.events[latest..]
        .iter()
        .map(|(at, event)| ListItem::new(format!("{:5.1} s {event}", at.as_secs_f64())));
    frame.render_widget(List::new(lines).block(Block::bordered().title(" what happened ")), area);
}

fn draw_callers(frame: &mut Frame<'_>, area: Rect, counts: &Counts) {
    let millis = |quantile| counts.latencies_recent[0].value_at_quantile(quantile) as f64 / 1e3;
    let errors = counts.errors_seen();
    let style = if errors == 0 { Style::new().green() } else { Style::new().red() };
    let text = vec![
        Line::from(vec![
            Span::raw(format!("calls {}   errors seen by callers ", counts.calls)),
            Span::styled(errors.to_string(), style.bold()),
        ]),
        Line::from(format!(
            "latency now: p50 {:.1} ms, p99 {:.1} ms   (q ends the run)",
            millis(0.5),
            millis(0.99)
        )),
    ];
    frame.render_widget(Paragraph::new(text).block(Block::bordered().title(" callers ")), area);
}
