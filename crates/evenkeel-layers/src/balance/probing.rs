//! Sends the probes that a policy asks for.

use std::{sync::Arc, time::Duration};

use evenkeel_core::policy::Ticket;
use evenkeel_metrics::Client;
use tokio::{task::JoinSet, time::sleep_until};

use super::{probes::Probes, shared::Shared};
use crate::clock;

/// How long to wait before looking again, where a policy wants no probes or none is known.
const AGAIN: Duration = Duration::from_secs(1);

/// Sends probes until it is dropped. The probes that are under way are dropped with it.
pub(super) async fn send_probes<S>(probes: Probes, shared: Arc<Shared<S>>)
where
    S: Send + Sync + 'static,
{
    let mut rng = shared.rng();
    let mut reader = shared.snapshots.reader();
    let signals = shared.signals.clone();
    // Each probe is a task of its own, so that one that panics or takes long does not affect the
    // others.
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
                    under_way.spawn(probe(probes.clone(), shared.client.clone(), ticket));
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

async fn probe(probes: Probes, client: Client, ticket: Ticket) {
    let load = probes.ask(&client, ticket.node(), None).await;
    let now = clock::now();
    match load {
        Some(load) => ticket.record_answer(load, now),
        None => ticket.record_failure(now),
    }
}
