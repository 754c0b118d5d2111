//! The command line of the demo.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, Subcommand, value_parser};
use evenkeel::core::policy::{self, Policy};

use crate::BoxError;

/// A load through a whole pipeline while servers die, hang, drain and join.
#[derive(Clone, Debug, Parser)]
#[command(name = "demo")]
pub(crate) struct Args {
    /// The policy that picks endpoints
    #[arg(long, default_value = "weighted_p2c", value_parser = policy::NAMES)]
    policy: String,

    /// How many HTTP servers run at first
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u16).range(4..=64))]
    pub(crate) backends: u16,

    /// Calls per second
    #[arg(long, default_value_t = 400, value_parser = value_parser!(u32).range(1..=20_000))]
    pub(crate) rate: u32,

    /// How long the load lasts
    #[arg(long, default_value_t = 15, value_parser = value_parser!(u32).range(5..=3_600))]
    seconds: u32,

    /// Print a log even on a terminal
    #[arg(long)]
    pub(crate) plain: bool,

    /// Save the last screen as a picture in SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) picture: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// One HTTP server. The demo starts these itself.
    #[command(hide = true)]
    Backend {
        /// The service time of an answer
        #[arg(long)]
        delay_ms: u64,
    },
}

impl Args {
    pub(crate) fn policy(&self) -> Result<Box<dyn Policy>, BoxError> {
        policy::by_name(&self.policy).ok_or_else(|| format!("no policy `{}`", self.policy).into())
    }

    pub(crate) fn policy_name(&self) -> &str {
        &self.policy
    }

    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }
}
