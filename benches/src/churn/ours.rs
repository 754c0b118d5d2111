//! Changes of the set of our balancer.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use evenkeel_core::{
    connect::Connect,
    discover::{Discovery, Update, Watch},
    node::Node,
    policy,
};
use evenkeel_layers::balance::{Balance, BalanceLayer};
use futures_util::stream::poll_fn;
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::yield_now,
};
use tower::{Layer, Service, ServiceExt};

use super::{Change, REPETITIONS, Took};
use crate::{
    clock::Stopwatch,
    leaf::{Nothing, endpoints},
};

/// The runtime has one thread: when this task runs again, the balancer's task has done all it can.
pub(super) async fn measure(policy: &str, change: Change, count: usize) -> Took {
    let (updates, receiver) = unbounded_channel();
    let asked = Arc::<AtomicU64>::default();
    let feed = Feed { updates: Mutex::new(Some(receiver)), asked: asked.clone() };
    let policy = policy::by_name(policy).expect("it is one of the names");
    let mut balance = BalanceLayer::with_policy(feed, policy).layer(|_: &Arc<Node>| Nothing);
    updates.send(Update::Set(endpoints(count))).expect("it is followed");
    request(&mut balance).await;

    let mut samples = Vec::with_capacity(REPETITIONS);
    for repetition in 0..REPETITIONS {
        let update = (change.update)(count, repetition);
        let before = asked.load(Relaxed);

        let stopwatch = Stopwatch::start();
        updates.send(update).expect("it is followed");
        while asked.load(Relaxed) == before {
            yield_now().await;
        }
        let applied = stopwatch.nanos();

        let stopwatch = Stopwatch::start();
        request(&mut balance).await;
        samples.push((applied, stopwatch.nanos()));
    }
    Took {
        applied: samples.iter().map(|(applied, _)| *applied).collect(),
        request: samples.iter().map(|(_, request)| *request).collect(),
    }
}

async fn request<C>(balance: &mut Balance<C>)
where
    C: Connect + Send + Sync + 'static,
    Balance<C>: Service<u64, Response = u64>,
    <Balance<C> as Service<u64>>::Error: std::fmt::Debug,
{
    let ready = balance.ready().await.expect("an endpoint is open");
    ready.call(1).await.expect("every endpoint answers");
}

/// A discovery that forwards the updates sent to it, and counts how often it had none.
struct Feed {
    updates: Mutex<Option<UnboundedReceiver<Update>>>,
    asked: Arc<AtomicU64>,
}

impl Discovery for Feed {
    fn watch(&self) -> Watch {
        let updates = self.updates.lock().expect("no panic under the lock").take();
        let mut updates = updates.expect("one balancer follows it");
        let asked = self.asked.clone();
        Box::pin(poll_fn(move |cx| {
            let next = updates.poll_recv(cx);
            if next.is_pending() {
                asked.fetch_add(1, Relaxed);
            }
            next.map(|update| update.map(Ok))
        }))
    }
}
