//! One trial: five endpoints, one contestant, one fault.

use std::{sync::Arc, time::Duration};

use evenkeel_rig::{
    clock::Origin,
    load::{Call, Load},
};
use tokio::time::sleep;

use crate::{
    BoxError,
    contestants::Contestant,
    fault::{Fault, Stage},
    process::Endpoint,
    scene::{ENDPOINTS, Lane, Scene},
    wire::{Attempt, Wire},
};

/// The minimum time of load before the fault. A random half second is added.
pub(crate) const WARM_UP: Duration = Duration::from_millis(1_000);
pub(crate) const PHASE: Duration = Duration::from_millis(500);

/// The parts of a trial.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) contestant: Arc<dyn Contestant>,
    pub(crate) fault: Fault,
    pub(crate) rate: u32,
    pub(crate) seed: u64,
}

/// The record of a trial. Times are since its beginning.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// Calls per second.
    pub(crate) rate: u32,
    pub(crate) calls: Vec<Call>,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) target: usize,
    pub(crate) struck: Duration,
    /// When the repair began and when it ended.
    pub(crate) healing: Duration,
    pub(crate) healed: Duration,
    pub(crate) ended: Duration,
}

impl Setup {
    /// Runs the trial in `lane`, which no other trial uses meanwhile.
    pub(crate) async fn run(&self, lane: Lane, wire: &Wire) -> Result<Record, BoxError> {
        let folder = tempfile::tempdir()?;
        let scene = Scene {
            lane,
            protocol: self.contestant.protocol(self.fault),
            folder: folder.path().to_owned(),
            seed: self.seed,
        };
        let closes = self.fault.closes_connections();
        let starts = scene.places().map(|place| Endpoint::start(place, closes));
        let mut endpoints = futures_util::future::try_join_all(starts).await?;
        let record = self.watch(&scene, &mut endpoints, wire).await;
        // The next trial in this lane needs these addresses.
        for endpoint in &mut endpoints {
            endpoint.kill().await?;
        }
        record
    }

    async fn watch(
        &self,
        scene: &Scene,
        endpoints: &mut Vec<Endpoint>,
        wire: &Wire,
    ) -> Result<Record, BoxError> {
        let (lane, running) = (scene.lane, self.contestant.start(scene).await?);

        let mut rng = fastrand::Rng::with_seed(self.seed);
        let target = rng.usize(..ENDPOINTS);
        let origin = Origin::now();
        wire.begin(lane.number, origin);
        let load = Load::start(running.client.clone(), self.rate, origin, rng.u64(..));
        sleep(WARM_UP + PHASE.mul_f64(rng.f64())).await;

        let mut announce = running.announce;
        let mut stage = Stage { endpoints, announce: &mut *announce, lane, target };
        let struck = origin.elapsed();
        stage.strike(self.fault).await?;
        let healing = origin.elapsed();
        stage.heal(self.fault).await?;
        let healed = origin.elapsed();
        sleep(self.fault.lasts().1).await;
        let ended = origin.elapsed();

        let calls = load.stop().await?;
        let attempts = wire.end(lane.number);
        drop(running.client);
        if let Some(proxy) = running.proxy {
            proxy.stop().await?;
        }
        Ok(Record { rate: self.rate, calls, attempts, target, struck, healing, healed, ended })
    }
}
