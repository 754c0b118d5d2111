//! The policies that can be compared: evenkeel's own, and rules for comparison.

use evenkeel_core::policy::{self, BUILT_IN, P2c, Policy, PreferZone, ZoneAware, laws::Spread};

use crate::rules::{self, Surroundings};

/// Makes a policy for one run.
pub type Maker = dyn Fn(&Surroundings) -> Box<dyn Policy> + Send + Sync;

/// The names of all policies. Evenkeel's own come first.
#[must_use]
pub fn names() -> Vec<&'static str> {
    policy::names().chain(rules::names()).collect()
}

/// Policies that use the key of a request.
#[must_use]
pub fn hashing() -> Vec<&'static str> {
    BUILT_IN.iter().filter(|policy| policy.hashes()).map(|policy| policy.name).collect()
}

/// The policies that are compared by default: evenkeel's own policies that balance by themselves
/// and need no key.
#[must_use]
pub fn balancing() -> Vec<&'static str> {
    let balances = |policy: &&policy::BuiltIn| {
        !policy.hashes() && !policy.wraps() && policy.spread != Spread::Not
    };
    BUILT_IN.iter().filter(balances).map(|policy| policy.name).collect()
}

/// The policy of this name: one of evenkeel's, or a rule for comparison.
#[must_use]
pub fn by_name(name: &str, surroundings: &Surroundings) -> Option<Box<dyn Policy>> {
    // The list makes these for a caller whose zone is unknown.
    if let Some(zone) = surroundings.zone() {
        match name {
            "zone_aware" => return Some(Box::new(ZoneAware::new(zone, P2c))),
            "prefer_zone" => return Some(Box::new(PreferZone::new(zone, P2c))),
            _ => {}
        }
    }
    policy::by_name(name).or_else(|| rules::by_name(name, surroundings))
}

/// Whether there is a policy of this name.
///
/// # Errors
/// If there is none. The message lists the policies that exist.
pub fn check(name: &str) -> Result<(), String> {
    if names().contains(&name) {
        return Ok(());
    }
    Err(format!("there is no policy `{name}`; there are {}", names().join(", ")))
}
