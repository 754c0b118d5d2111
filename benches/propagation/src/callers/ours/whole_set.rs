//! The cost of a whole set of many endpoints: no registry, one balancer, in a process of its own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use evenkeel::{
    discovery::{Sender, channel},
    http::HttpConnector,
};
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncReadExt, io::stdin, time::timeout};

use super::{News, Search, pipeline::Pipeline, tracker::Tracker};
use crate::{
    BoxError,
    callers::Change,
    cost::Cost,
    lines::{Lines, end_with_parent, tell},
    moment::{Moment, millis},
};

/// Argument that makes this process take whole sets: `--whole-set` and the number of endpoints.
pub(crate) const ARGUMENT: &str = "--whole-set";

const PATIENCE: Duration = Duration::from_secs(30);

/// What the process reports.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Told {
    /// A set was find_handed over: the full one, or one with an added endpoint.
    Handed {
        at: Moment,
    },
    News(News),
}

/// Takes a set of `words[0]` endpoints, and then a set with one more for each line of its input.
pub(crate) fn run(words: &[String]) -> Result<(), BoxError> {
    end_with_parent()?;
    let count: usize = words.first().ok_or("how many endpoints?")?.parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (sender, discovery) = channel();
        sender.set([address(0)]);
        let tracker = Tracker::start();
        let connector = tracker.track(0, HttpConnector::new());
        let pipeline = Pipeline::new(Arc::new(discovery), connector, false, 1);
        // This call starts the balancer. No server listens there.
        _ = timeout(PATIENCE, pipeline.clone().call()).await;
        hand_over(&sender, count).await
    })
}

async fn hand_over(sender: &Sender, count: usize) -> Result<(), BoxError> {
    let mut input = stdin();
    for more in 0.. {
        if input.read_u8().await.is_err() {
            break;
        }
        // Made beforehand, because only taking the set is measured.
        let all: Vec<SocketAddr> = (0..count + more).map(address).collect();
        let at = Moment::now();
        sender.set(all);
        tell(&Told::Handed { at });
    }
    Ok(())
}

fn address(number: usize) -> SocketAddr {
    let [.., high, low] = (number as u32 + 1).to_be_bytes();
    (Ipv4Addr::new(127, 1, high, low), 1).into()
}

/// The cost of a set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// Milliseconds until all of a first set can be picked.
    pub(crate) first: f64,
    /// Milliseconds until an added endpoint can be picked, in a set that is otherwise the same.
    pub(crate) more: f64,
    /// Processor time of the first set in milliseconds, including the watching thread.
    pub(crate) work: f64,
    /// Megabytes of memory that the first set costs.
    pub(crate) memory: f64,
}

/// Measures it once.
pub(crate) async fn measure(count: usize) -> Result<Figures, BoxError> {
    let mut process = Lines::start(&[ARGUMENT.to_owned(), count.to_string()])?;
    let id = process.id().ok_or("it has ended")?;
    let cost = || Cost::of(id).ok_or("it has ended");
    // The set that it begins with.
    wait_until_applied(&mut process, Change::Joined(address(0))).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = cost()?;
    process.tell("").await?;
    let all = wait_until_applied(&mut process, Change::Count(count)).await?;
    let work = cost()?.work - before.work;
    let first =
        find_handed(&process, 0).map(|at| millis(all.since(at))).ok_or("no set was handed over")?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let after = cost()?;
    process.tell("").await?;
    let new = wait_until_applied(&mut process, Change::Joined(address(count))).await?;
    let more =
        find_handed(&process, 1).map(|at| millis(new.since(at))).ok_or("no set was handed over")?;
    Ok(Figures { first, more, work, memory: after.memory - before.memory })
}

async fn wait_until_applied(process: &mut Lines<Told>, change: Change) -> Result<Moment, BoxError> {
    let (mut search, mut read) = (Search::new(change, 1), 0);
    let found = process.until(PATIENCE, |all| {
        let news: Vec<News> = all[read..]
            .iter()
            .filter_map(|told| match told {
                Told::News(news) => Some(news.clone()),
                Told::Handed { .. } => None,
            })
            .collect();
        read = all.len();
        search.restart();
        search.go_on(&news)
    });
    Ok(found.await.ok_or("a set is not applied in time")?)
}

fn find_handed(process: &Lines<Told>, which: usize) -> Option<Moment> {
    process.so_far(|all| {
        let handed = all.iter().filter_map(|told| match told {
            Told::Handed { at } => Some(*at),
            Told::News(_) => None,
        });
        handed.clone().nth(which)
    })
}
