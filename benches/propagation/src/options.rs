//! The command line.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::{Parser, value_parser};

use crate::{
    BoxError,
    callers::{self, Caller},
    event::Event,
    registries::{self, Registry},
};

/// Measures how fast a change in a registry reaches every balancer, and what callers see meanwhile.
#[derive(Clone, Debug, Parser)]
#[command(name = "propagation")]
pub(crate) struct Options {
    /// Trials of each event; `churn` has one, with as many changes as it takes
    #[arg(long, default_value_t = 30, value_parser = value_parser!(u32).range(1..=10_000))]
    pub(crate) trials: u32,

    /// Registries: consul,etcd,etcd-3,dns (default: all)
    #[arg(long, value_delimiter = ',')]
    registries: Vec<String>,

    /// Events: join,leave,crash (default: all)
    #[arg(long, value_delimiter = ',')]
    events: Vec<String>,

    /// Callers: ours,traefik,grpc-go (default: all)
    #[arg(long, value_delimiter = ',')]
    callers: Vec<String>,

    /// Calls per second in each trial
    #[arg(long, default_value_t = 400, value_parser = value_parser!(u32).range(10..=5_000))]
    pub(crate) rate: u32,

    /// How many balancers share one discovery
    #[arg(long, default_value_t = 4, value_parser = value_parser!(u8).range(1..=64))]
    pub(crate) balancers: u8,

    /// How long the registry is partitioned
    #[arg(long, default_value_t = 30, value_parser = value_parser!(u32).range(1..=600))]
    partition_seconds: u32,

    /// The time to live of entries; the minimum of etcd is 2
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(2..=600))]
    ttl_seconds: u32,

    /// The number of endpoints in events with many endpoints
    #[arg(long, default_value_t = 10_000, value_parser = value_parser!(u16).range(100..=60_000))]
    pub(crate) endpoints: u16,

    /// How long endpoints change among many others
    #[arg(long, default_value_t = 60, value_parser = value_parser!(u32).range(1..=3_600))]
    churn_seconds: u32,

    /// How many trials run in parallel; trials with many endpoints run alone
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u8).range(1..=50))]
    pub(crate) parallel: u8,

    /// Seed of arrivals, and of the moment of each event
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,

    /// Writes every trial's figures to this file
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,

    /// Prints the tables in Markdown
    #[arg(long)]
    pub(crate) markdown: bool,

    /// Lists events, registries and callers, and runs nothing
    #[arg(long)]
    pub(crate) list: bool,
}

impl Options {
    pub(crate) fn partition(&self) -> Duration {
        Duration::from_secs(self.partition_seconds.into())
    }

    pub(crate) fn ttl(&self) -> Duration {
        Duration::from_secs(self.ttl_seconds.into())
    }

    /// Changes among many endpoints, 10 per second.
    pub(crate) fn changes(&self) -> u32 {
        self.churn_seconds * 10
    }

    /// The chosen events, in their order.
    pub(crate) fn events(&self) -> Result<Vec<Event>, BoxError> {
        chosen("event", Event::ALL.to_vec(), &self.events, |event| event.name())
    }

    /// The chosen registries, in their order.
    pub(crate) fn registries(&self) -> Result<Vec<Arc<dyn Registry>>, BoxError> {
        chosen("registry", registries::all(), &self.registries, |registry| registry.name())
    }

    /// The chosen callers, in their order.
    pub(crate) fn callers(&self) -> Result<Vec<Arc<dyn Caller>>, BoxError> {
        chosen("caller", callers::all(), &self.callers, |caller| caller.name())
    }
}

/// The entries of `all` that `words` name, or all if there are no words.
fn chosen<T>(
    what: &str,
    mut all: Vec<T>,
    words: &[String],
    name: impl Fn(&T) -> &'static str,
) -> Result<Vec<T>, BoxError> {
    let names: Vec<_> = all.iter().map(&name).collect();
    if let Some(word) = words.iter().find(|word| !names.contains(&word.as_str())) {
        let names = names.join(", ");
        return Err(format!("there is no {what} `{word}`; there are {names}").into());
    }
    all.retain(|one| words.is_empty() || words.iter().any(|word| word == name(one)));
    Ok(all)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn options(words: &[&str]) -> Options {
        Options::parse_from(std::iter::once(&"propagation").chain(words))
    }

    #[test]
    fn events_and_registries_are_chosen_by_name_and_stay_in_their_order() {
        let options = options(&["--events", "crash,join", "--registries", "etcd"]);

        assert_eq!(options.events().unwrap(), [Event::Join, Event::Crash]);
        let registries = options.registries().unwrap();
        assert_eq!(registries.iter().map(|r| r.name()).collect::<Vec<_>>(), ["etcd"]);
        assert_eq!(self::options(&[]).events().unwrap().len(), Event::ALL.len());
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_names_that_exist() {
        let event = options(&["--events", "fire"]).events().unwrap_err().to_string();
        let registry = options(&["--registries", "etc"]).registries().unwrap_err().to_string();

        assert!(event.contains("`fire`") && event.contains("partition"), "{event}");
        assert!(registry.contains("consul"), "{registry}");
    }
}
