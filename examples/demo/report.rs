//! The final table, and whether the run succeeded.

use crate::{args::Args, stats::Stats};

/// Prints how much each endpoint served, how long callers waited, and which errors they saw.
pub(crate) fn print(args: &Args, stats: &Stats) {
    let counts = stats.lock();
    let served: u64 = counts.endpoints.values().map(|endpoint| endpoint.served).sum();
    println!();
    println!(
        "{:<22} {:<9} {:>9} {:>7} {:>9} {:>9}",
        "endpoint", "state", "served", "share", "p50 ms", "p99 ms"
    );
    for endpoint in counts.endpoints.values() {
        let share = endpoint.served as f64 * 100.0 / served.max(1) as f64;
        let millis = |quantile| endpoint.latencies.value_at_quantile(quantile) as f64 / 1e3;
        println!(
            "{:<22} {:<9} {:>9} {share:>6.1}% {:>9.1} {:>9.1}",
            endpoint.name,
            endpoint.state,
            endpoint.served,
            millis(0.5),
            millis(0.99),
        );
    }
    let millis = |quantile| counts.latencies.value_at_quantile(quantile) as f64 / 1e3;
    println!();
    println!("policy                   {}", args.policy_name());
    println!("calls                    {}", counts.calls);
    println!(
        "latency                  p50 {:.1} ms, p99 {:.1} ms, worst {:.1} ms",
        millis(0.5),
        millis(0.99),
        counts.latencies.max() as f64 / 1e3
    );
    for (error, times) in &counts.errors {
        println!("error                    {times} times: {error}");
    }
    println!("errors seen by callers:  {}", counts.errors_seen());
    if !is_kept(counts.calls, counts.errors_seen()) {
        println!("The run failed: it needs calls, and no error.");
    }
}

/// Whether there were calls and no caller saw an error.
pub(crate) fn has_succeeded(stats: &Stats) -> bool {
    let counts = stats.lock();
    is_kept(counts.calls, counts.errors_seen())
}

fn is_kept(calls: u64, errors: u64) -> bool {
    0 < calls && errors == 0
}
