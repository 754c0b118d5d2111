//! Reports as comma-separated values.

use super::Report;

/// All runs, one line per phase of each run.
#[must_use]
pub fn to_csv(reports: &[Report]) -> String {
    let mut text = String::from(
        "scenario,policy,seed,step,seconds,calls,errors,timeouts,mean_ms,p50_ms,p90_ms,p99_ms,p999_ms,\
         attempts,wasted,worst_share,fair_share,in_flight_max,in_flight_p50,in_flight_p99,\
         connections_mean,connections_max\n",
    );
    for report in reports {
        for phase in &report.phases {
            let cells = [
                quoted(&report.scenario),
                quoted(&report.label),
                report.seed.to_string(),
                quoted(&phase.name),
                phase.seconds.to_string(),
                phase.calls.to_string(),
                phase.errors.to_string(),
                phase.timeouts.to_string(),
                phase.mean.to_string(),
                phase.p50.to_string(),
                phase.p90.to_string(),
                phase.p99.to_string(),
                phase.p999.to_string(),
                phase.attempts.to_string(),
                phase.wasted.to_string(),
                phase.worst_share.to_string(),
                phase.fair_share.to_string(),
                phase.in_flight_max.to_string(),
                phase.in_flight_p50.to_string(),
                phase.in_flight_p99.to_string(),
                report.connections_mean.to_string(),
                report.connections_max.to_string(),
            ];
            text += &cells.join(",");
            text.push('\n');
        }
    }
    text
}

/// The counts over time, one line per bucket of each run.
#[must_use]
pub fn series_csv(reports: &[Report], bucket_seconds: f64) -> String {
    let mut text =
        String::from("scenario,policy,seconds,calls,errors,p50_ms,p99_ms,attempts_by_group\n");
    for report in reports {
        for (index, bucket) in report.series.iter().enumerate() {
            let attempts: Vec<_> = bucket.attempts.iter().map(ToString::to_string).collect();
            let cells = [
                quoted(&report.scenario),
                quoted(&report.label),
                format!("{:.3}", index as f64 * bucket_seconds),
                bucket.calls.to_string(),
                bucket.errors.to_string(),
                bucket.p50.to_string(),
                bucket.p99.to_string(),
                attempts.join(" "),
            ];
            text += &cells.join(",");
            text.push('\n');
        }
    }
    text
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
