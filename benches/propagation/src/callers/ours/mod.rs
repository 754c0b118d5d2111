//! evenkeel: several balancers that share one discovery, in a process of their own.

mod pipeline;
mod tracker;
pub(crate) mod whole_set;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use evenkeel::{core::discover::Discovery, discovery::targets::discover, http::HttpConnector};
use evenkeel_rig::{
    clock::Origin,
    load::{Call, Client, Load},
};
use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, stdin};

use self::{pipeline::Pipeline, tracker::Tracker};
use super::{Caller, Calling, Change, Seen};
use crate::{
    BoxError,
    event::Event,
    lines::{Lines, end_with_parent, tell},
    moment::Moment,
    options::Options,
    scene::Scene,
};

/// Argument that makes this process a caller: `--caller` and its [`Settings`] in JSON.
pub(crate) const ARGUMENT: &str = "--caller";

/// How long it may take to find the first endpoints.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// How long the calls in flight may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// The settings of a process of callers.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Settings {
    /// The address of its discovery.
    target: String,
    balancers: usize,
    rate: u32,
    seed: u64,
    checks: bool,
}

/// One report: the balancer, the endpoint, and the time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum News {
    Joined(usize, SocketAddr, Moment),
    Left(usize, SocketAddr, Moment),
    Weight(usize, SocketAddr, u32, Moment),
    Ended(Seen),
}

/// Calls until its input ends.
pub(crate) fn run(words: &[String]) -> Result<(), BoxError> {
    end_with_parent()?;
    crate::install_cryptography();
    let settings: Settings = serde_json::from_str(words.first().ok_or("settings are missing")?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(call(&settings))
}

async fn call(settings: &Settings) -> Result<(), BoxError> {
    let discovery = discover(&settings.target)?;
    let tracker = Tracker::start();
    let pipelines: Vec<Pipeline> = (0..settings.balancers)
        .map(|number| pipeline(&discovery, &tracker, number, settings))
        .collect();
    join_all(pipelines.iter().cloned().map(Pipeline::warm_up)).await;

    let client: Client = Arc::new(move |number| {
        let turn = usize::try_from(number).unwrap_or_default() % pipelines.len();
        pipelines[turn].clone().call().boxed()
    });
    let (origin, began) = (Origin::now(), Moment::now());
    let load = Load::start(client.clone(), settings.rate, origin, settings.seed);
    stdin().read_to_end(&mut Vec::new()).await?;
    let calls = load.stop().await?;
    // Before the balancers are dropped, which drops all their nodes.
    tell(&News::Ended(Seen { attempts: tracker.attempts(), ..summarize(&calls, began) }));
    drop(client);
    Ok(())
}

/// One balancer of several.
fn pipeline(
    discovery: &Arc<dyn Discovery>,
    tracker: &Tracker,
    number: usize,
    settings: &Settings,
) -> Pipeline {
    let seed = settings.seed.wrapping_add(number as u64);
    let connector =
        tracker.track(number, HttpConnector::new().authority("web.internal").watch_connections());
    Pipeline::new(discovery.clone(), connector, settings.checks, seed)
}

/// Summarizes these calls. The first of them began at `began`.
pub(super) fn summarize(calls: &[Call], began: Moment) -> Seen {
    let failed = || calls.iter().filter(|call| call.failure.is_some());
    Seen {
        calls: calls.len(),
        errors: failed().count(),
        first_error: failed().next().and_then(|call| call.failure.clone()),
        last_error: failed().map(|call| call.start).max().map(|start| began.plus(start)),
        ..Seen::default()
    }
}

#[derive(Debug)]
pub(crate) struct Ours;

impl Caller for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn about(&self) -> &'static str {
        "evenkeel: the pipeline of its README, several balancers on one discovery"
    }

    fn missing(&self) -> Option<String> {
        None
    }

    fn reads(&self, _: &str, _: Event) -> bool {
        true
    }

    fn reports_changes(&self) -> bool {
        true
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(20)
    }

    fn start<'a>(
        &'a self,
        scene: &'a Scene,
        options: &'a Options,
        seed: u64,
    ) -> BoxFuture<'a, Result<Box<dyn Calling>, BoxError>> {
        async move {
            // With many endpoints, a process is measured with a single balancer.
            let balancers = if scene.is_large { 1 } else { options.balancers.into() };
            let settings = Settings {
                target: scene.target.clone(),
                balancers,
                rate: if scene.is_large { options.rate / 4 } else { options.rate },
                seed,
                checks: !scene.is_large,
            };
            let arguments = [ARGUMENT.to_owned(), serde_json::to_string(&settings)?];
            let process = Lines::start(&arguments)?;
            let mut callers = Callers { process, balancers, began_with: scene.entered() };
            let all = Change::Count(callers.began_with);
            callers.until(all, STARTS_WITHIN).await.ok_or("callers find no endpoints")?;
            Ok(Box::new(callers) as Box<dyn Calling>)
        }
        .boxed()
    }
}

struct Callers {
    process: Lines<News>,
    balancers: usize,
    /// How many endpoints there were at the beginning.
    began_with: usize,
}

impl Calling for Callers {
    fn until<'a>(&'a mut self, change: Change, after: Duration) -> BoxFuture<'a, Option<Moment>> {
        let mut search = Search::new(change, self.balancers);
        async move { self.process.until(after, |all| search.go_on(all)).await }.boxed()
    }

    fn process(&self) -> Option<u32> {
        self.process.id()
    }

    fn end(mut self: Box<Self>) -> BoxFuture<'static, Result<Seen, BoxError>> {
        async move {
            self.process.close();
            let ended = |all: &[News]| {
                all.iter().rev().find_map(|news| match news {
                    News::Ended(seen) => Some(seen.clone()),
                    _ => None,
                })
            };
            let seen = self.process.until(ENDS_WITHIN, ended).await;
            let mut seen = seen.ok_or("callers do not end")?;
            let least = self.process.so_far(|all| least(all, self.balancers, self.began_with));
            seen.min_endpoints = least;
            Ok(seen)
        }
        .boxed()
    }
}

/// Searches for a change in reports, as they come in.
struct Search {
    change: Change,
    read: usize,
    counts: Vec<usize>,
    found: Vec<Option<Moment>>,
}

impl Search {
    fn new(change: Change, balancers: usize) -> Self {
        Self { change, read: 0, counts: vec![0; balancers], found: vec![None; balancers] }
    }

    /// Reads the reports from their beginning.
    fn restart(&mut self) {
        self.read = 0;
    }

    /// When the last balancer had the change, once all have it.
    fn go_on(&mut self, all: &[News]) -> Option<Moment> {
        for news in &all[self.read..] {
            let (balancer, at, is_it) = match *news {
                News::Joined(balancer, address, at) => {
                    self.counts[balancer] += 1;
                    (balancer, at, self.change == Change::Joined(address))
                }
                News::Left(balancer, address, at) => {
                    self.counts[balancer] = self.counts[balancer].saturating_sub(1);
                    (balancer, at, self.change == Change::Left(address))
                }
                News::Weight(balancer, address, weight, at) => {
                    (balancer, at, self.change == Change::Weight(address, weight))
                }
                News::Ended(_) => continue,
            };
            let is_full = self.change == Change::Count(self.counts[balancer]);
            if (is_it || is_full) && self.found[balancer].is_none() {
                self.found[balancer] = Some(at);
            }
        }
        self.read = all.len();
        let all: Option<Vec<Moment>> = self.found.iter().copied().collect();
        all?.into_iter().max()
    }
}

/// The fewest endpoints that a balancer had after it had `began_with`.
fn least(all: &[News], balancers: usize, began_with: usize) -> Option<usize> {
    let mut counts = vec![(0_usize, false); balancers];
    let mut least = None;
    for news in all {
        let (balancer, change) = match *news {
            News::Joined(balancer, ..) => (balancer, 1),
            News::Left(balancer, ..) => (balancer, -1),
            News::Weight(..) => continue,
            News::Ended(_) => break,
        };
        let (count, was_full) = &mut counts[balancer];
        *count = count.saturating_add_signed(change);
        *was_full |= began_with <= *count;
        if *was_full {
            least = Some(least.map_or(*count, |least: usize| least.min(*count)));
        }
    }
    least
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        ([127, 0, 0, last], 80).into()
    }

    fn at(millis: u64) -> Moment {
        Moment::of_day(0).plus(Duration::from_millis(millis))
    }

    #[test]
    fn a_change_is_found_when_the_last_balancer_has_it() {
        let origin = at(0);
        let later = |millis| origin.plus(Duration::from_millis(millis));
        let mut search = Search::new(Change::Joined(address(1)), 2);
        let mut all =
            vec![News::Joined(0, address(1), later(5)), News::Joined(1, address(2), later(6))];

        assert_eq!(search.go_on(&all), None);
        all.push(News::Joined(1, address(1), later(9)));

        assert_eq!(search.go_on(&all), Some(later(9)));
    }

    #[test]
    fn the_smallest_set_counts_from_the_first_full_set_on() {
        let origin = at(0);
        let all = [
            News::Joined(0, address(1), origin),
            News::Joined(0, address(2), origin),
            News::Left(0, address(1), origin),
            News::Joined(0, address(1), origin),
        ];

        assert_eq!(least(&all, 1, 2), Some(1));
        assert_eq!(least(&all[..2], 1, 2), Some(2));
        assert_eq!(least(&all[..1], 1, 2), None);
    }
}
