//! The servers, and what happens to them.

use std::{sync::Arc, time::Duration};

use evenkeel::{
    core::endpoint::{Address, Endpoint},
    discovery::channel::{ChannelDiscovery, Sender, channel},
};
use tokio::time::sleep;

use crate::{BoxError, args::Args, backend::Backend, stats::Stats};

/// The running servers, and the registry that lists them.
pub(crate) struct Scene {
    backends: Vec<Backend>,
    registry: Sender,
    discovery: ChannelDiscovery,
    stats: Arc<Stats>,
}

/// The events, each with its share of the run.
const SCRIPT: [(f64, Act); 7] = [
    (0.15, Act::ChangeWeight),
    (0.30, Act::Kill),
    (0.40, Act::ForgetKilled),
    (0.50, Act::Hang),
    (0.60, Act::ForgetHanging),
    (0.70, Act::Drain),
    (0.80, Act::Join),
];

#[derive(Clone, Copy)]
enum Act {
    ChangeWeight,
    Kill,
    ForgetKilled,
    Hang,
    ForgetHanging,
    Drain,
    Join,
}

/// The roles of the servers.
const REWEIGHTED: usize = 0;
const KILLED: usize = 1;
const HANGING: usize = 2;
const DRAINED: usize = 3;

impl Scene {
    /// Starts the servers, each with a different speed, and registers them.
    pub(crate) async fn set_up(args: &Args, stats: Arc<Stats>) -> Result<Self, BoxError> {
        let (registry, discovery) = channel();
        let mut scene = Self { backends: Vec::new(), registry, discovery, stats };
        for number in 0..u64::from(args.backends) {
            scene.start(Duration::from_millis(2 + 3 * (number % 5))).await?;
        }
        scene.registry.set(scene.backends.iter().map(|backend| backend.address));
        Ok(scene)
    }

    pub(crate) fn discovery(&self) -> ChannelDiscovery {
        self.discovery.clone()
    }

    /// Runs the script, spread over `duration`.
    pub(crate) async fn play(&mut self, duration: Duration) {
        let mut before = 0.0;
        for (at, act) in SCRIPT {
            sleep(duration.mul_f64(at - before)).await;
            before = at;
            self.act(act).await;
        }
        sleep(duration.mul_f64(1.0 - before)).await;
    }

    /// Ends all servers.
    pub(crate) async fn strike(&mut self) {
        for backend in &mut self.backends {
            backend.kill().await;
        }
    }

    async fn start(&mut self, delay: Duration) -> Result<Address, BoxError> {
        let backend = Backend::start(delay).await?;
        let address = Address::from(backend.address);
        self.stats.note(&address.to_string(), "serves", &format!("joins, answers in {delay:?}"));
        self.backends.push(backend);
        Ok(address)
    }

    async fn act(&mut self, act: Act) {
        match act {
            Act::ChangeWeight => {
                self.registry.set_weight(&self.address(REWEIGHTED), 3);
                self.note(REWEIGHTED, "weight 3", "gets weight 3");
            }
            Act::Kill => {
                self.backends[KILLED].kill().await;
                self.note(KILLED, "dead", "killed, still registered");
            }
            Act::ForgetKilled => self.forget(KILLED),
            Act::Hang => {
                self.backends[HANGING].hang().await;
                self.note(HANGING, "hangs", "hangs: answers nothing");
            }
            Act::ForgetHanging => self.forget(HANGING),
            Act::Drain => {
                self.registry.set_weight(&self.address(DRAINED), 0);
                self.note(DRAINED, "drained", "drained");
            }
            Act::Join => match self.start(Duration::from_millis(2)).await {
                Ok(address) => self.registry.insert(Endpoint::new(address)),
                Err(error) => self.stats.note("a new server", "failed", &error.to_string()),
            },
        }
    }

    fn forget(&self, number: usize) {
        self.registry.remove(&self.address(number));
        self.note(number, "gone", "deregistered");
    }

    fn note(&self, number: usize, state: &str, event: &str) {
        self.stats.note(&self.backends[number].address.to_string(), state, event);
    }

    fn address(&self, number: usize) -> Address {
        self.backends[number].address.into()
    }
}
