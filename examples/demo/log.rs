//! The run as a plain log, if there is no terminal.

use std::{sync::Arc, time::Duration};

use tokio::time::interval;

use crate::{BoxError, args::Args, stats::Stats};

/// Prints events, and every second how many requests each endpoint served.
pub(crate) async fn print(args: Args, stats: Arc<Stats>) -> Result<(), BoxError> {
    println!("{} calls a second by {}", args.rate, args.policy_name());
    let mut second = interval(Duration::from_secs(1));
    let mut noted = 0;
    let mut served_before = Vec::new();
    while !stats.is_stopped() {
        tokio::select! {
            _ = second.tick() => {}
            () = stats.stop_signal.notified() => {}
        }
        let elapsed = stats.elapsed().as_secs_f64();
        let counts = stats.lock();
        for (at, event) in &counts.events[noted..] {
            println!("{:6.1} s  {event}", at.as_secs_f64());
        }
        noted = counts.events.len();

        served_before.resize(counts.endpoints.len(), 0);
        let served: Vec<_> = counts.endpoints.values().map(|endpoint| endpoint.served).collect();
        let last: Vec<_> =
            served.iter().zip(&served_before).map(|(now, before)| now - before).collect();
        let p99 = counts.latencies_recent[0].value_at_quantile(0.99) as f64 / 1e3;
        let errors = counts.errors_seen();
        println!(
            "{elapsed:6.1} s  served {last:?}  p99 {p99:.1} ms  errors seen by callers: {errors}"
        );
        served_before = served;
    }
    Ok(())
}
