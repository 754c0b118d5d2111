//! The zones of a scenario.

use crate::scenario::Scenario;

/// All named zones. Servers and clients without a zone are in the first.
pub(super) fn zones(scenario: &Scenario) -> Vec<&str> {
    let of_servers = scenario.servers.iter().filter_map(|servers| servers.zone.as_deref());
    let of_clients = scenario.clients.zones.iter().map(String::as_str);
    let mut zones: Vec<&str> = of_servers.chain(of_clients).collect();
    zones.sort_unstable();
    zones.dedup();
    zones
}

pub(super) fn zone_number(zones: &[&str], zone: Option<&String>) -> u16 {
    let found = zone.and_then(|zone| zones.iter().position(|known| known == zone));
    found.unwrap_or(0) as u16
}
