//! SRV records, and the addresses of their targets.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use evenkeel_core::backoff::Backoff;
use evenkeel_discovery::Dns;

use crate::conformance::{
    harness::{BACKOFF, Harness, Instance},
    simulated::{Reply, Server},
};

const NAME: &str = "_web._tcp.example.test.";

pub(crate) struct Records {
    server: Server,
    now: Vec<Instance>,
    failed_at: Option<Instant>,
}

impl Harness for Records {
    const HAS_TIERS: bool = true;

    type Source = Dns;

    async fn start() -> Option<Self> {
        let server = Server::start().await;
        server.reply(NAME, Reply::NoData);
        Some(Self { server, now: vec![], failed_at: None })
    }

    fn discovery(&self) -> Dns {
        let (min, max) = BACKOFF;
        Dns::srv(NAME)
            .unwrap()
            .nameserver(self.server.address)
            .ttl_bounds(Duration::from_millis(20), Duration::from_millis(300))
            .backoff(Backoff::new(min, max))
            .timeout(Duration::from_secs(2))
    }

    async fn set(&mut self, instances: &[Instance]) {
        self.now = instances.to_vec();
        let mut records = vec![];
        for instance in instances {
            let address: SocketAddr = instance.address.parse().unwrap();
            let plain = address.ip().to_string().replace(['.', ':'], "-");
            // Leaked, as the simulated server keeps its names for ever.
            let target: &'static str = format!("h{plain}.example.test.").leak();
            self.server.reply(target, Reply::Addresses(vec![address.ip()]));
            let (tier, weight) = (instance.tier as u16, instance.weight as u16);
            records.push((tier, weight, address.port(), target));
        }
        let reply = if records.is_empty() { Reply::NoData } else { Reply::Services(records) };
        self.server.reply(NAME, reply);
    }

    /// Answers once that there is no such name.
    async fn blink(&mut self) {
        self.server.reply_once(NAME, Reply::NxDomain);
    }

    async fn fail(&mut self) {
        self.server.reply(NAME, Reply::ServFail);
        self.failed_at = Some(Instant::now());
    }

    async fn mend(&mut self) {
        self.set(&self.now.clone()).await;
    }

    fn asked(&self) -> Vec<Instant> {
        let failed_at = self.failed_at.unwrap();
        self.server.asked_at().into_iter().filter(|at| failed_at <= *at).collect()
    }

    async fn enter_beside(&mut self) {
        let records = vec![(0, 1, 9, "h10-9-9-9.example.test.")];
        self.server.reply("_web2._tcp.example.test.", Reply::Services(records.clone()));
        self.server.reply("_web._tcp.example.test.example.test.", Reply::Services(records));
    }
}
