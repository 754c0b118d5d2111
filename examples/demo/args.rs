//! The command line of the demo.

use std::{fmt::Display, ops::RangeInclusive, path::PathBuf, str::FromStr, time::Duration};

use evenkeel::core::policy::{self, Policy};
use lexopt::prelude::*;

use crate::BoxError;

const HELP: &str = "A load through a whole pipeline while servers die, hang, drain and join

Usage: demo [OPTIONS]

      --policy NAME     The policy that picks endpoints [default: weighted_p2c]
      --backends N      How many HTTP servers run at first, 4 to 64 [default: 5]
      --rate N          Calls per second, 1 to 20000 [default: 400]
      --seconds N       How long the load lasts, 5 to 3600 [default: 15]
      --plain           Print a log even on a terminal
      --picture FILE    Save the last screen as a picture in SVG
  -h, --help            Print this";

#[derive(Clone, Debug)]
pub(crate) struct Args {
    policy: String,
    pub(crate) backends: u16,
    /// In calls per second.
    pub(crate) rate: u32,
    seconds: u32,
    pub(crate) plain: bool,
    pub(crate) picture: Option<PathBuf>,
    /// Run as one of the servers that the demo starts. The value is its service time in milliseconds.
    pub(crate) backend: Option<u64>,
}

impl Args {
    /// Reads the command line; none if it only asked for help.
    pub(crate) fn parse() -> Result<Option<Self>, BoxError> {
        let mut args = Self {
            policy: "weighted_p2c".into(),
            backends: 5,
            rate: 400,
            seconds: 15,
            plain: false,
            picture: None,
            backend: None,
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("policy") => args.policy = parser.value()?.string()?,
                Long("backends") => args.backends = number(&mut parser, "--backends", 4..=64)?,
                Long("rate") => args.rate = number(&mut parser, "--rate", 1..=20_000)?,
                Long("seconds") => args.seconds = number(&mut parser, "--seconds", 5..=3_600)?,
                Long("plain") => args.plain = true,
                Long("picture") => args.picture = Some(parser.value()?.into()),
                Long("backend") => args.backend = Some(parser.value()?.parse()?),
                Short('h') | Long("help") => {
                    println!("{HELP}\n\nPolicies: {}", names());
                    return Ok(None);
                }
                other => return Err(other.unexpected().into()),
            }
        }
        args.policy()?;
        Ok(Some(args))
    }

    pub(crate) fn policy(&self) -> Result<Box<dyn Policy>, BoxError> {
        let known = || format!("no policy `{}`; there are {}", self.policy, names());
        policy::by_name(&self.policy).ok_or_else(|| known().into())
    }

    pub(crate) fn policy_name(&self) -> &str {
        &self.policy
    }

    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }
}

fn names() -> String {
    policy::names().collect::<Vec<_>>().join(", ")
}

fn number<N>(
    parser: &mut lexopt::Parser,
    name: &str,
    range: RangeInclusive<N>,
) -> Result<N, BoxError>
where
    N: FromStr<Err: Display + Send + Sync + std::error::Error + 'static> + PartialOrd + Display,
{
    let number: N = parser.value()?.parse()?;
    if range.contains(&number) {
        return Ok(number);
    }
    Err(format!("{name} is {number}; it must be from {} to {}", range.start(), range.end()).into())
}
