//! Which servers each client knows.

use std::collections::HashMap;

use evenkeel_core::{
    endpoint::{Address, Endpoint},
    subset::{Aperture, Client, Numbers, RandomSubset, Rocksteadier, Subset},
};

use crate::scenario::{Clients, SubsetBy};

/// The servers, and how a client chooses among them.
pub(super) struct Subsets {
    endpoints: Vec<Endpoint>,
    servers: HashMap<Address, u32>,
    numbers: Numbers,
}

impl Subsets {
    /// All of these servers.
    pub(super) fn of(listed: impl Iterator<Item = (u32, Endpoint)>) -> Self {
        let (mut endpoints, mut servers) = (Vec::new(), HashMap::new());
        for (server, endpoint) in listed {
            servers.insert(endpoint.address.clone(), server);
            endpoints.push(endpoint);
        }
        let mut numbers = Numbers::default();
        numbers.update(&endpoints);
        Self { endpoints, servers, numbers }
    }

    /// The servers that the client of this number knows. All clients share `seed`.
    pub(super) fn choose(&self, clients: &Clients, number: u32, seed: u64) -> Vec<(u32, Endpoint)> {
        let size = clients.subset;
        let chosen = match clients.subset_by {
            _ if size == 0 => self.endpoints.clone(),
            SubsetBy::Random => {
                let rule = RandomSubset::new(size as usize, seed ^ u64::from(number));
                rule.choose(&self.endpoints, &self.numbers)
            }
            SubsetBy::Aperture => {
                let rule = Aperture::new(size, Client::new(number, clients.count));
                rule.choose(&self.endpoints, &self.numbers)
            }
            SubsetBy::Rocksteadier => {
                let rule = Rocksteadier::new(size as usize, number);
                rule.choose(&self.endpoints, &self.numbers)
            }
        };
        let known = |endpoint: Endpoint| (self.servers[&endpoint.address], endpoint);
        chosen.into_iter().map(known).collect()
    }
}
