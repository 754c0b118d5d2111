//! The command line of the league.

use std::{path::PathBuf, sync::Arc};

use clap::{Args, Parser, value_parser};

use crate::{
    BoxError,
    contestants::{Contestant, all},
    fault::Fault,
};

/// Measures how fast each contestant stops using a faulty endpoint, and what callers see meanwhile
#[derive(Clone, Debug, Parser)]
#[command(name = "league")]
pub(crate) struct Options {
    /// Trials of each fault and contestant
    #[arg(long, default_value_t = 30, value_parser = value_parser!(u32).range(1..=10_000))]
    pub(crate) trials: u32,

    /// Faults, by name or the beginning of a name: F1,F3h2,F4 (default: all)
    #[arg(long, value_delimiter = ',')]
    faults: Vec<String>,

    /// Contestants: ours,nginx-tuned (default: all)
    #[arg(long, value_delimiter = ',')]
    contestants: Vec<String>,

    /// Calls per second in each trial, over five endpoints
    #[arg(long, default_value_t = 250, value_parser = value_parser!(u32).range(50..=5_000))]
    pub(crate) rate: u32,

    /// Seed of all random choices of the league: arrivals, and the time and target of a fault
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,

    /// How many trials run in parallel
    #[arg(long, default_value_t = 18, value_parser = value_parser!(u8).range(1..=100))]
    pub(crate) parallel: u8,

    /// Writes every trial's figures to this file
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,

    /// Prints the tables in Markdown
    #[arg(long)]
    pub(crate) markdown: bool,

    /// Lists faults and contestants, and runs nothing
    #[arg(long)]
    pub(crate) list: bool,

    #[command(flatten)]
    pub(crate) programs: Programs,
}

/// The paths of the proxies.
#[derive(Args, Clone, Debug)]
pub(crate) struct Programs {
    /// nginx
    #[arg(long, default_value = "nginx")]
    pub(crate) nginx: PathBuf,

    /// HAProxy
    #[arg(long, default_value = "haproxy")]
    pub(crate) haproxy: PathBuf,

    /// Envoy
    #[arg(long, default_value = "envoy")]
    pub(crate) envoy: PathBuf,
}

impl Options {
    /// The chosen faults, in their order.
    pub(crate) fn faults(&self) -> Result<Vec<Fault>, BoxError> {
        let names = Fault::ALL.map(Fault::name);
        let begins = |name: &str, word: &str| {
            word.len() <= name.len() && name[..word.len()].eq_ignore_ascii_case(word)
        };
        for word in &self.faults {
            if word.is_empty() || !names.iter().any(|name| begins(name, word)) {
                return Err(unknown_name_error("fault", word, &names));
            }
        }
        let is_wanted = |fault: &Fault| {
            self.faults.is_empty() || self.faults.iter().any(|word| begins(fault.name(), word))
        };
        Ok(Fault::ALL.into_iter().filter(is_wanted).collect())
    }

    /// The chosen contestants, in their order.
    pub(crate) fn contestants(&self) -> Result<Vec<Arc<dyn Contestant>>, BoxError> {
        let mut contestants = all(&self.programs);
        let names: Vec<_> = contestants.iter().map(|contestant| contestant.name()).collect();
        for word in &self.contestants {
            if !names.contains(&&**word) {
                return Err(unknown_name_error("contestant", word, &names));
            }
        }
        contestants.retain(|contestant| {
            self.contestants.is_empty() || self.contestants.iter().any(|n| n == contestant.name())
        });
        Ok(contestants)
    }
}

fn unknown_name_error(what: &str, word: &str, names: &[&str]) -> BoxError {
    format!("there is no {what} `{word}`; there are {}", names.join(", ")).into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn options(words: &[&str]) -> Options {
        Options::parse_from(std::iter::once(&"league").chain(words))
    }

    #[test]
    fn faults_are_chosen_by_name_or_prefix() {
        let names = |words: &[&str]| {
            let faults = options(words).faults().unwrap();
            faults.into_iter().map(Fault::name).collect::<Vec<_>>()
        };

        assert_eq!(names(&["--faults", "f2,F3h2"]), ["F2", "F3h2"]);
        assert_eq!(names(&["--faults", "F4"]), ["F4a", "F4b", "F4c"]);
        assert_eq!(names(&[]).len(), Fault::ALL.len());
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_names_that_exist() {
        let fault = options(&["--faults", "F9"]).faults().unwrap_err().to_string();
        let contestant = options(&["--contestants", "us"]).contestants().unwrap_err().to_string();

        assert!(fault.contains("`F9`") && fault.contains("F3new"), "{fault}");
        assert!(contestant.contains("haproxy-tuned"), "{contestant}");
    }
}
