//! The events with many endpoints. The rig registers them, and one backend answers for all.

use std::{path::Path, time::Duration};

use evenkeel_rig::clock::Origin;
use tokio::time::{sleep, sleep_until};

use crate::{
    BoxError,
    callers::{Calling, Change},
    cost::Cost,
    moment::{Moment, millis},
    scene::Scene,
    trial::{Figures, Setup, Watch, announced},
};

/// How many endpoints appear at once.
const THOUSAND: usize = 1_000;

/// How many endpoints there are before.
const FEW: usize = 3;

/// How long many endpoints may take to reach every balancer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The time between two changes.
const PERIOD: Duration = Duration::from_millis(100);

/// How long memory settles before it is read.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);

/// 1,000 endpoints appear as fast as the registry takes them.
pub(crate) async fn thousand(setup: &Setup, folder: &Path) -> Result<Figures, BoxError> {
    let mut scene = Scene::set_large(&*setup.registry, folder, &setup.options).await?;
    scene.insert_many(FEW).await?;
    let mut calling = setup.caller.start(&scene, &setup.options, setup.seed).await?;
    sleep(Duration::from_millis(500)).await;

    let watch = Watch::begin(&scene.counts, &*calling);
    scene.insert_many(THOUSAND).await?;
    let written = Moment::now();
    let applied = calling.until(Change::Count(FEW + THOUSAND), PATIENCE).await;
    let announced = announced(&scene.counts, applied);
    let applied = vec![time(written, applied)];
    let mut figures = Figures { applied, announced, ..Figures::default() };
    watch.end(&mut figures, &scene.counts, &*calling);
    end(calling, &mut figures).await?;
    Ok(figures)
}

/// Endpoints join and leave in turn among many others, ten changes per second.
pub(crate) async fn churn(setup: &Setup, folder: &Path) -> Result<Figures, BoxError> {
    let mut scene = Scene::set_large(&*setup.registry, folder, &setup.options).await?;
    let many: usize = setup.options.endpoints.into();
    scene.insert_many(FEW).await?;
    let mut calling = setup.caller.start(&scene, &setup.options, setup.seed).await?;
    let before = memory(&*calling).await;
    scene.insert_many(many - FEW).await?;
    calling.until(Change::Count(many), PATIENCE).await.ok_or("many endpoints are not found")?;
    let after = memory(&*calling).await;

    let watch = Watch::begin(&scene.counts, &*calling);
    let mut changes = Vec::new();
    let start = Origin::now();
    for number in 0..setup.options.changes() {
        sleep_until(start.plus(PERIOD * number)).await;
        changes.push(change(&mut scene, number as usize / 2, number % 2 == 0).await?);
    }
    let mut figures = Figures {
        memory: before.zip(after).map(|(before, after)| after - before),
        ..Figures::default()
    };
    watch.end(&mut figures, &scene.counts, &*calling);
    for (began, change) in changes {
        let applied = calling.until(change, PATIENCE).await;
        figures.announced.extend(announced(&scene.counts, applied));
        figures.applied.push(time(began, applied));
    }
    end(calling, &mut figures).await?;
    Ok(figures)
}

/// Makes a change, and returns the change and its begin.
async fn change(scene: &mut Scene, turn: usize, joins: bool) -> Result<(Moment, Change), BoxError> {
    let began = Moment::now();
    if joins {
        let address = scene.one_of_many(scene.many);
        scene.insert_many(1).await?;
        return Ok((began, Change::Joined(address)));
    }
    let address = scene.one_of_many(turn);
    scene.registry.remove(address).await?;
    Ok((began, Change::Left(address)))
}

async fn memory(calling: &dyn Calling) -> Option<f64> {
    sleep(SETTLES_WITHIN).await;
    calling.process().and_then(Cost::of).map(|cost| cost.memory)
}

fn time(began: Moment, at: Option<Moment>) -> f64 {
    at.map_or(f64::INFINITY, |at| millis(at.since(began)))
}

async fn end(calling: Box<dyn Calling>, figures: &mut Figures) -> Result<(), BoxError> {
    let seen = calling.end().await?;
    figures.calls = seen.calls;
    figures.errors = seen.errors;
    figures.first_error = seen.first_error;
    Ok(())
}
