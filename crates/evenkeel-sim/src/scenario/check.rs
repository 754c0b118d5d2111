//! Checks that the parts of a scenario fit together.

use super::{Antagonist, FaultKind, Law, Load, Scenario, Servers};
use crate::policies;

/// A problem and where it is written.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) section: String,
    pub(super) number: usize,
    pub(super) key: &'static str,
    pub(super) text: String,
}

fn problem(section: &str, key: &'static str, text: impl Into<String>) -> Problem {
    Problem { section: section.to_owned(), number: 0, key, text: text.into() }
}

/// More connections would not fit into memory.
const MAX_NODES: u64 = 40_000_000;

impl Scenario {
    pub(super) fn check(&self) -> Result<(), Problem> {
        for name in &self.policies {
            policies::check(name).map_err(|text| problem("", "policies", text))?;
        }
        self.load.check()?;
        if self.work.mean.0.is_zero() {
            return Err(problem("work", "mean", "a call needs some work; write mean = \"1ms\""));
        }
        if self.work.law == Law::Pareto && self.work.shape.is_some_and(|shape| shape.0 <= 1.0) {
            let text = "a Pareto law has a mean only if its shape is above 1; write shape = 1.5";
            return Err(problem("work", "shape", text));
        }
        if self.servers.is_empty() {
            return Err(problem("servers", "count", "there is no server; add [[servers]]"));
        }
        for (number, servers) in self.servers.iter().enumerate() {
            servers.check(self).map_err(|(key, text)| Problem {
                section: "servers".into(),
                number,
                key,
                text,
            })?;
        }
        self.check_clients()?;
        if self.retry.is_some_and(|retry| !(1..=8).contains(&retry.attempts)) {
            return Err(problem("retry", "attempts", "from 1 to 8 attempts"));
        }
        if self.hedge.is_some_and(|hedge| hedge.percentile.is_some() == hedge.after.is_some()) {
            let text = "write either percentile = 95 or after = \"10ms\"";
            return Err(problem("hedge", "percentile", text));
        }
        if self.keys.is_some_and(|keys| keys.count == 0 || keys.remembered == 0) {
            return Err(problem("keys", "count", "there must be keys, and some remembered"));
        }
        Ok(())
    }

    fn check_clients(&self) -> Result<(), Problem> {
        let servers: u64 = self.servers.iter().map(|servers| u64::from(servers.count)).sum();
        let subset = u64::from(self.clients.subset);
        let nodes = u64::from(self.clients.count) * if subset == 0 { servers } else { subset };
        if self.clients.count == 0 {
            return Err(problem("clients", "count", "there is no client; write count = 1"));
        }
        if MAX_NODES < nodes {
            let text = format!(
                "{nodes} connections do not fit into memory (at most {MAX_NODES}); write subset = 100"
            );
            return Err(problem("clients", "count", text));
        }
        let is_zoned = self.servers.iter().any(|servers| servers.zone.is_some());
        if is_zoned && self.clients.zones.is_empty() {
            let text = "servers have zones and clients have none; write zones = [\"a\"]";
            return Err(problem("clients", "zones", text));
        }
        Ok(())
    }
}

impl Load {
    fn check(&self) -> Result<(), Problem> {
        let kinds = usize::from(self.rate.is_some())
            + usize::from(self.utilization.is_some())
            + usize::from(self.concurrency.is_some());
        let wanted = usize::from(self.steps.is_empty());
        if kinds != wanted {
            let text = if wanted == 1 {
                "write one of rate = 1000, utilization = 0.8 and concurrency = 64"
            } else {
                "with steps, write rate or utilization in each step"
            };
            return Err(problem("load", "rate", text));
        }
        if self.concurrency == Some(0) {
            return Err(problem("load", "concurrency", "concurrency must be at least 1"));
        }
        for step in &self.steps {
            if step.rate.is_some() == step.utilization.is_some() {
                let text = format!("step {}: write either rate or utilization", step.name);
                return Err(problem("load", "steps", text));
            }
            if step.lasts <= step.settles {
                let text = format!("step {}: no part of it would be counted", step.name);
                return Err(problem("load", "steps", text));
            }
        }
        if self.steps.is_empty() && self.calls.is_none() && self.lasts.is_none() {
            return Err(problem(
                "load",
                "calls",
                "the run never ends; write calls or lasts = \"10s\"",
            ));
        }
        Ok(())
    }
}

impl Servers {
    fn check(&self, scenario: &Scenario) -> Result<(), (&'static str, String)> {
        let error = |key, text: &str| Err((key, text.to_owned()));
        if !(1..=1_000_000).contains(&self.count) {
            return error("count", "a group has from 1 to 1,000,000 servers");
        }
        if self.leaves.is_some_and(|leaves| leaves <= self.joins.unwrap_or_default()) {
            return error("leaves", "the servers leave before they join");
        }
        if let Some(antagonist) = &self.antagonist {
            antagonist.check().map_err(|text| ("antagonist", text))?;
        }
        let may_hang = self.faults.iter().any(|fault| fault.kind == FaultKind::Hangs);
        let call = scenario.call;
        if may_hang && call.deadline.is_none() && call.attempt_timeout.is_none() {
            return error(
                "faults",
                "a call may hang without end; write deadline = \"5s\" in [call]",
            );
        }
        for fault in &self.faults {
            if let (Some(lasts), Some(every)) = (fault.lasts, fault.every)
                && every <= lasts
            {
                return error("faults", "a fault repeats before it ends; make every longer");
            }
            if fault.every.is_some() && fault.lasts.is_none() {
                return error("faults", "a fault without end cannot repeat; write lasts");
            }
        }
        Ok(())
    }
}

impl Antagonist {
    fn check(&self) -> Result<(), String> {
        if self.every.0.is_zero() {
            return Err("a level must last some time; write every = \"10s\"".into());
        }
        let is_rising = self.levels.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1);
        let is_complete = self.levels.last().is_some_and(|last| last.0 == 1.0);
        let is_in_bounds = self
            .levels
            .iter()
            .all(|level| (0.0..=1.0).contains(&level.0) && 0.0 <= level.1 && level.1.is_finite());
        if is_rising && is_complete && is_in_bounds {
            Ok(())
        } else {
            Err("levels are [share, factor], both rising, the last share 1: \
                 [[0.0, 0.5], [1.0, 1.0]]"
                .into())
        }
    }
}
