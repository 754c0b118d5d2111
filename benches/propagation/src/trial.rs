//! One trial: a registry, backends, a caller, and one event.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use tokio::time::sleep;

use crate::{
    BoxError,
    callers::{Caller, Calling, Change, Seen, ours::whole_set},
    cost::Cost,
    event::Event,
    large,
    moment::{Moment, millis},
    options::Options,
    registries::Registry,
    relay::Counts,
    scene::{BACKENDS, Lane, Scene, TARGET},
};

/// The minimum time of load before the event. A random time is added.
const WARM_UP: Duration = Duration::from_millis(700);

/// How long a discovery may take to follow a registry again: its longest pause is 30 s.
const RECOVERS_WITHIN: Duration = Duration::from_secs(60);

/// How long a trial goes on after a registry has come back. By then a discovery trusts a suspicious
/// set.
const SETTLES_WITHIN: Duration = Duration::from_secs(8);

/// The weight that the target changes to.
const WEIGHT: u32 = 5;

/// The parts of a trial.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) caller: Arc<dyn Caller>,
    pub(crate) event: Event,
    pub(crate) options: Arc<Options>,
    pub(crate) seed: u64,
}

/// The measured figures. Times are in milliseconds, and infinite for what did not happen.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Figures {
    /// The time until the change was in every balancer.
    pub(crate) applied: Vec<f64>,
    /// The part of that time after the last data from the registry.
    pub(crate) announced: Vec<f64>,
    /// The time until the first request, or the last.
    pub(crate) request: Vec<f64>,
    pub(crate) calls: usize,
    pub(crate) errors: usize,
    pub(crate) first_error: Option<String>,
    /// Bytes from the registry since the event.
    pub(crate) bytes: u64,
    /// Connections to the registry at a time.
    pub(crate) connections: usize,
    /// Processor time of the callers' process since the event, and the duration.
    pub(crate) work: f64,
    pub(crate) lasted: f64,
    /// Megabytes that many endpoints cost.
    pub(crate) memory: Option<f64>,
    pub(crate) min_endpoints: Option<usize>,
}

impl Setup {
    /// Runs the trial in `lane`, which no other trial uses meanwhile.
    pub(crate) async fn run(&self, lane: Lane) -> Result<Figures, BoxError> {
        let folder = tempfile::tempdir()?;
        match self.event {
            Event::Thousand => large::thousand(self, folder.path()).await,
            Event::Churn => large::churn(self, folder.path()).await,
            Event::WholeSet => {
                let cost = whole_set::measure(self.options.endpoints.into()).await?;
                Ok(Figures {
                    applied: vec![cost.first],
                    request: vec![cost.more],
                    work: cost.work,
                    memory: Some(cost.memory),
                    ..Figures::default()
                })
            }
            _ => self.small(lane, folder.path()).await,
        }
    }

    async fn small(&self, lane: Lane, folder: &std::path::Path) -> Result<Figures, BoxError> {
        let (tags, options) = (self.caller.tags(), &*self.options);
        let mut scene = Scene::set(&*self.registry, &tags, lane, options, folder).await?;
        let there = if self.joins() { BACKENDS - 1 } else { BACKENDS };
        for index in 0..there {
            scene.enter(index).await?;
        }
        for index in 0..there {
            scene.until_entered(index).await?;
        }
        let mut calling = self.caller.start(&scene, options, self.seed).await?;
        let mut rng = fastrand::Rng::with_seed(self.seed);
        // Heartbeats come at a third of the time to live, and a crash at any time between two of
        // them.
        sleep(WARM_UP + (options.ttl() / 3).mul_f64(rng.f64())).await;

        let watch = Watch::begin(&scene.counts, &*calling);
        let mut figures = self.strike(&mut scene, &mut *calling).await?;
        watch.end(&mut figures, &scene.counts, &*calling);
        let seen = calling.end().await?;
        self.read(&seen, &mut figures, &scene, watch.began);
        Ok(figures)
    }

    /// Whether the target joins, and so is not registered before.
    fn joins(&self) -> bool {
        use Event::{Join, Leader, Partition, Restart};
        matches!(self.event, Join | Restart | Partition | Leader)
    }

    async fn strike(
        &self,
        scene: &mut Scene,
        calling: &mut dyn Calling,
    ) -> Result<Figures, BoxError> {
        match self.event {
            Event::Join => self.join(scene, calling, self.caller.patience()).await,
            Event::Leave => self.leave(scene, calling).await,
            Event::Weight => {
                let began = scene.weight(TARGET, WEIGHT).await?;
                let change = Change::Weight(scene.address(TARGET), WEIGHT);
                let applied = calling.until(change, self.caller.patience()).await;
                Ok(self.figures(scene, began, applied, None))
            }
            Event::Crash => {
                let (began, gone) = (scene.kill(TARGET).await?, scene.address(TARGET));
                let patience = self.caller.patience();
                let applied = calling.until(Change::Left(gone), patience).await;
                if !self.caller.reports_changes() {
                    sleep(patience).await;
                }
                Ok(self.figures(scene, began, applied, None))
            }
            Event::Restart => {
                scene.registry.restart().await?;
                scene.registry.until_ready().await?;
                self.recover(scene, calling).await
            }
            Event::Partition => {
                scene.registry.pause()?;
                sleep(self.options.partition()).await;
                scene.registry.resume()?;
                self.recover(scene, calling).await
            }
            Event::Leader => {
                scene.registry.kill_leader().await?;
                self.recover(scene, calling).await
            }
            Event::Thousand | Event::Churn | Event::WholeSet => {
                Err("an event with many endpoints has a scene of its own".into())
            }
        }
    }

    async fn join(
        &self,
        scene: &mut Scene,
        calling: &mut dyn Calling,
        patience: Duration,
    ) -> Result<Figures, BoxError> {
        let began = scene.enter(TARGET).await?;
        let change = Change::Joined(scene.address(TARGET));
        let applied = calling.until(change, patience).await;
        let first = scene.first_request(TARGET, patience).await;
        Ok(self.figures(scene, began, applied, Some(first)))
    }

    async fn leave(
        &self,
        scene: &mut Scene,
        calling: &mut dyn Calling,
    ) -> Result<Figures, BoxError> {
        let began = scene.leave(TARGET).await?;
        let change = Change::Left(scene.address(TARGET));
        let applied = calling.until(change, self.caller.patience()).await;
        let last = scene.last_request(TARGET).await;
        if !self.caller.reports_changes() {
            sleep(self.caller.patience()).await;
        }
        // No attempt since then is the best result.
        Ok(self.figures(scene, began, applied, Some(Some(last.unwrap_or(began).max(began)))))
    }

    /// A backend joins as soon as it can, and the trial goes on for a while.
    async fn recover(
        &self,
        scene: &mut Scene,
        calling: &mut dyn Calling,
    ) -> Result<Figures, BoxError> {
        let figures = self.join(scene, calling, RECOVERS_WITHIN).await?;
        sleep(SETTLES_WITHIN).await;
        Ok(figures)
    }

    fn figures(
        &self,
        scene: &Scene,
        began: Moment,
        applied: Option<Moment>,
        request: Option<Option<Moment>>,
    ) -> Figures {
        let time = |at: Option<Moment>| at.map_or(f64::INFINITY, |at| millis(at.since(began)));
        let announced = announced(&scene.counts, applied);
        let applied = if self.caller.reports_changes() { vec![time(applied)] } else { vec![] };
        let request = request.map(time).into_iter().collect();
        Figures { applied, announced, request, ..Figures::default() }
    }

    /// Computes figures from what callers saw.
    fn read(&self, seen: &Seen, figures: &mut Figures, scene: &Scene, began: Moment) {
        figures.calls = seen.calls;
        figures.errors = seen.errors;
        figures.first_error.clone_from(&seen.first_error);
        figures.min_endpoints = seen.min_endpoints;
        let tried = seen.attempts.iter().filter(|(endpoint, _)| *endpoint == scene.address(TARGET));
        let tried = tried.map(|(_, at)| *at).max();
        let last = if self.caller.reports_changes() { tried } else { seen.last_error };
        let last = last.map_or(0.0, |at| millis(at.since(began)));
        match self.event {
            Event::Crash => figures.request = vec![last],
            // A caller that still calls it after the stop sees errors.
            Event::Leave => figures.request.iter_mut().for_each(|time| *time = time.max(last)),
            _ => {}
        }
    }
}

/// The time from the last data of the registry until a change was in every balancer, if there is a
/// relay that recorded it.
pub(crate) fn announced(counts: &Counts, applied: Option<Moment>) -> Vec<f64> {
    let announced =
        applied.and_then(|at| counts.last_before(at).map(|last| millis(at.since(last))));
    announced.into_iter().collect()
}

/// The use of resources since a point in time.
pub(crate) struct Watch {
    pub(crate) began: Moment,
    bytes: u64,
    cost: Option<Cost>,
}

impl Watch {
    pub(crate) fn begin(counts: &Counts, calling: &dyn Calling) -> Self {
        let cost = calling.process().and_then(Cost::of);
        Self { began: Moment::now(), bytes: counts.bytes(), cost }
    }

    pub(crate) fn end(&self, figures: &mut Figures, counts: &Counts, calling: &dyn Calling) {
        figures.lasted = millis(Moment::now().since(self.began));
        figures.bytes = counts.bytes() - self.bytes;
        figures.connections = counts.connections();
        let now = calling.process().and_then(Cost::of);
        figures.work = self.cost.zip(now).map_or(0.0, |(before, now)| now.work - before.work);
    }
}
