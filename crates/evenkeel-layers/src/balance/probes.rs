//! Sends the probes that a policy asks for.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use evenkeel_core::{BoxError, load::ServerLoad, node::Node, policy::Ticket, probe::LoadProbe};
use evenkeel_metrics::Client;
use tokio::{
    task::JoinSet,
    time::{sleep_until, timeout},
};

use super::shared::Shared;
use crate::clock;

/// The target of what is traced.
const TARGET: &str = "evenkeel::balance";

/// How long to wait before looking again, where a policy wants no probes or none is known.
const AGAIN: Duration = Duration::from_secs(1);

/// How endpoints are asked for their load, without the type of the probe.
#[derive(Clone)]
pub(super) struct Probes {
    probe: Arc<dyn AnyProbe>,
    timeout: Duration,
}

impl Probes {
    pub(super) fn new(probe: impl LoadProbe) -> Self {
        Self { probe: Arc::new(Boxed(Arc::new(probe))), timeout: Duration::from_millis(100) }
    }

    /// Sets how long a probe may take.
    pub(super) fn timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Sends probes until it is dropped. The probes that are under way are dropped with it.
    pub(super) async fn run<S>(self, shared: Arc<Shared<S>>)
    where
        S: Send + Sync + 'static,
    {
        let mut rng = shared.rng();
        let mut reader = shared.snapshots.reader();
        let signals = shared.signals.clone();
        // Each probe is a task of its own, so that one that panics or takes long does not affect
        // the others.
        let mut under_way = JoinSet::new();
        loop {
            let again = {
                let snapshot = reader.read(&shared.snapshots);
                let now = clock::now();
                let mut again = now + AGAIN;
                snapshot.picker.each_probing(&snapshot.nodes, &mut |probing, nodes| {
                    let signals = signals.clone();
                    probing.wake_with(move || signals.probes.notify_one());
                    let due = probing.due(nodes, &mut rng, now, &mut |ticket| {
                        under_way.spawn(self.clone().probe(shared.client.clone(), ticket));
                    });
                    again = again.min(due);
                });
                again
            };
            let wait = again.since(clock::now());
            tokio::select! {
                Some(_) = under_way.join_next() => {}
                () = signals.probes.notified() => {}
                () = sleep_until(clock::instant() + wait) => {}
            }
        }
    }

    async fn probe(self, client: Client, ticket: Ticket) {
        let load = self.ask(&client, ticket.node(), None).await;
        let now = clock::now();
        match load {
            Some(load) => ticket.answered(load, now),
            None => ticket.failed(now),
        }
    }

    /// What an endpoint answers in time. A `hash` asks on behalf of a request of that hash.
    pub(super) async fn ask(
        &self,
        client: &Client,
        node: &Arc<Node>,
        hash: Option<u64>,
    ) -> Option<ServerLoad> {
        let answer = timeout(self.timeout, self.probe.ask(node.clone(), hash)).await;
        evenkeel_metrics::load_probed(client, matches!(answer, Ok(Ok(_))));
        let (client, endpoint) = (client.name(), node.address());
        match answer {
            Ok(Ok(load)) => return Some(load),
            Ok(Err(error)) => {
                tracing::debug!(target: TARGET, client, %endpoint, %error, "a probe of its load failed");
            }
            Err(_) => {
                tracing::debug!(target: TARGET, client, %endpoint, "a probe of its load was not answered");
            }
        }
        None
    }
}

impl std::fmt::Debug for Probes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probes").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<ServerLoad, BoxError>> + Send>>;

trait AnyProbe: Send + Sync {
    fn ask(&self, node: Arc<Node>, hash: Option<u64>) -> Answer;
}

struct Boxed<P>(Arc<P>);

impl<P: LoadProbe> AnyProbe for Boxed<P> {
    fn ask(&self, node: Arc<Node>, hash: Option<u64>) -> Answer {
        let probe = self.0.clone();
        Box::pin(async move { probe.probe_for(&node, hash).await })
    }
}
