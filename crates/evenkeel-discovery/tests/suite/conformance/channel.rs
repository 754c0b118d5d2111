//! A channel into which the program itself puts endpoints.

use evenkeel_core::endpoint::Address;
use evenkeel_discovery::{ChannelDiscovery, Sender, channel};

use crate::conformance::harness::{Harness, Instance};

pub(crate) struct Channel {
    sender: Sender,
    discovery: ChannelDiscovery,
    entered: Vec<Address>,
}

impl Harness for Channel {
    const HAS_TIERS: bool = true;

    type Source = ChannelDiscovery;

    async fn start() -> Option<Self> {
        let (sender, discovery) = channel();
        sender.set(Vec::<Address>::new());
        Some(Self { sender, discovery, entered: vec![] })
    }

    fn discovery(&self) -> ChannelDiscovery {
        self.discovery.clone()
    }

    /// One change after the other; all at once if the set was empty.
    async fn set(&mut self, instances: &[Instance]) {
        let endpoints: Vec<_> = instances.iter().map(Instance::endpoint).collect();
        let addresses: Vec<_> = endpoints.iter().map(|e| e.address.clone()).collect();
        if self.entered.is_empty() {
            self.sender.set(endpoints);
        } else {
            for endpoint in endpoints {
                self.sender.insert(endpoint);
            }
            for address in self.entered.iter().filter(|old| !addresses.contains(old)) {
                self.sender.remove(address);
            }
        }
        self.entered = addresses;
    }

    async fn fail(&mut self) {
        self.sender.fail("the control plane is away");
    }

    async fn mend(&mut self) {}

    /// Makes enough changes that none of these is remembered for a watcher that did not read.
    async fn lose_history(&mut self, now: &[Instance]) {
        self.set(now).await;
        let one = now[0].endpoint();
        for weight in 2..3_000 {
            self.sender.insert(one.clone().weight(weight));
        }
        self.sender.insert(one);
    }
}
