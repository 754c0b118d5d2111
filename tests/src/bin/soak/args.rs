//! The command line.

use std::time::Duration;

use clap::Parser;

/// A pipeline under load for minutes, while its endpoints join, leave, fail, hang and die.
#[derive(Clone, Debug, Parser)]
pub(crate) struct Args {
    /// How long the run lasts.
    #[arg(long, default_value_t = 10.0, value_parser = minutes)]
    pub(crate) minutes: f64,
    /// Requests per second.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) rate: u32,
    /// The seed of all random choices.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

impl Args {
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0)
    }

    /// The total number of requests.
    pub(crate) fn requests(&self) -> usize {
        (self.duration().as_secs_f64() * f64::from(self.rate)) as usize
    }
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| "minutes are a number".to_owned())?;
    if (0.1..=600.0).contains(&minutes) {
        Ok(minutes)
    } else {
        Err("0.1 to 600 minutes".to_owned())
    }
}
