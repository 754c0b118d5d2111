//! The task that probes all endpoints.

use std::{collections::HashMap, error::Error, future, sync::Arc, time::Duration};

use evenkeel_core::{
    BoxError,
    endpoint::Address,
    error::{cause, is_of_this_host},
    health::check::{Effect, Next, NotServing, Probe, ProbeResult, Standing, Ticket},
    node::Node,
    rng::Rng,
    time::Timestamp,
};
use tokio::{
    runtime::Handle,
    task::{Id, JoinError, JoinSet},
    time::{sleep_until, timeout},
};

use super::{
    follow::{Followed, Following},
    watch::{Running, Watch},
};
use crate::{clock, outlier};

/// The target of what is traced here.
const TARGET: &str = "evenkeel::active_health";

/// What a probe found.
type Found = Result<(), BoxError>;

/// A probe did not end in time.
#[derive(Clone, Copy, Debug)]
struct ProbeTimeout {
    after: Duration,
}

impl std::fmt::Display for ProbeTimeout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no answer to the probe within {:?}", self.after)
    }
}

impl Error for ProbeTimeout {}

/// Has `node` probed, once: a service that is made again changes nothing.
pub(super) fn watch_node<P: Probe>(
    watch: &Arc<Watch>,
    node: &Arc<Node>,
    running: &Running,
    probe: &Arc<P>,
) {
    let Ok(runtime) = Handle::try_current() else {
        tracing::warn!(target: TARGET, client = watch.client.name(), endpoint = %node.address(), "no runtime: its health is not checked");
        return;
    };
    watch.checks.join(node, clock::now());
    watch.listen(node);
    watch.attention.notify_one();
    running.start(&runtime, || {
        watch.checks.restart(clock::now());
        probe_all(watch.clone(), probe.clone())
    });
}

/// Probes until it is aborted. Everything under way is aborted with it.
async fn probe_all<P: Probe>(watch: Arc<Watch>, probe: Arc<P>) {
    let rng = watch.seed.map_or_else(Rng::from_entropy, Rng::with_seed);
    let following = Following::new(probe.clone(), rng, watch.checks.rules().interval);
    let mut task =
        Task { watch, probe, under_way: JoinSet::new(), tickets: HashMap::new(), following };
    loop {
        let due = task.begin_due();
        task.wait(due).await;
    }
}

struct Task<P> {
    watch: Arc<Watch>,
    probe: Arc<P>,
    /// Each probe is a task of its own, so that one that panics or takes long does not affect the
    /// others.
    under_way: JoinSet<Found>,
    tickets: HashMap<Id, Ticket>,
    following: Following<P>,
}

impl<P: Probe> Task<P> {
    /// Begins the probes that are due, and returns when the next one is.
    fn begin_due(&mut self) -> Option<Timestamp> {
        let now = clock::now();
        self.following.sweep(now);
        let due = loop {
            match self.watch.checks.next(now) {
                Next::Probe(ticket) => self.begin(ticket),
                Next::At(at) => break Some(at),
                Next::Nothing => break None,
            }
        };
        [due, self.following.due()].into_iter().flatten().min()
    }

    fn begin(&mut self, ticket: Ticket) {
        let (probe, node) = (self.probe.clone(), ticket.node().clone());
        let after = self.watch.checks.rules().timeout;
        let under_way = self.under_way.spawn(async move {
            match timeout(after, probe.probe(&node)).await {
                Ok(found) => found,
                Err(_) => Err(ProbeTimeout { after }.into()),
            }
        });
        self.tickets.insert(under_way.id(), ticket);
    }

    /// Waits until something has happened, and handles it.
    async fn wait(&mut self, due: Option<Timestamp>) {
        let watch = self.watch.clone();
        tokio::select! {
            Some(ended) = self.under_way.join_next_with_id() => self.ended(ended),
            followed = self.following.next() => self.followed(followed),
            () = watch.attention.notified() => {}
            () = sleep(due) => {}
        }
    }

    fn ended(&mut self, ended: Result<(Id, Found), JoinError>) {
        let (id, found) = match ended {
            Ok((id, found)) => (id, found),
            Err(error) => (error.id(), Err(error.into())),
        };
        let Some(ticket) = self.tickets.remove(&id) else { return };
        if let Err(error) = &found
            && is_of_this_host(&**error)
        {
            let (endpoint, reason) = (ticket.node().address(), &**error as &(dyn Error + 'static));
            let client = self.watch.client.name();
            tracing::debug!(target: TARGET, client, %endpoint, reason, "a health check could not be made");
            return self.watch.checks.abandon(ticket, clock::now());
        }
        let verdict = match &found {
            Ok(()) => ProbeResult::Passed,
            Err(error) if cause::<NotServing>(&**error).is_some() => ProbeResult::Denied,
            Err(_) => ProbeResult::Failed,
        };
        evenkeel_metrics::count_health_check(&self.watch.client, found.is_ok());
        let (node, now) = (ticket.node().clone(), clock::now());
        let effect = self.watch.checks.finish(ticket, verdict, now);
        self.tell(node.address(), effect, &found);
        if verdict != ProbeResult::Failed {
            self.following.begin(&node, now);
        }
    }

    fn followed(&mut self, followed: Followed) {
        let now = clock::now();
        match followed {
            Followed::Said(address, found) => {
                let effect = self.watch.checks.report(&address, found.is_ok(), now);
                self.tell(&address, effect, &found);
            }
            Followed::Broke(address) => self.watch.checks.suspect(&address, now),
        }
    }

    fn tell(&self, endpoint: &Address, effect: Effect, found: &Found) {
        let client = self.watch.client.name();
        let reason = found.as_ref().err().map(|error| &**error as &(dyn Error + 'static));
        match effect.change {
            Some(Standing::Up) => {
                evenkeel_metrics::count_health_transition(&self.watch.client, true);
                tracing::info!(target: TARGET, client, %endpoint, "endpoint passes its health check: open");
            }
            Some(_) => {
                evenkeel_metrics::count_health_transition(&self.watch.client, false);
                tracing::warn!(target: TARGET, client, %endpoint, reason, "endpoint fails its health check: closed");
            }
            None if found.is_err() => {
                tracing::debug!(target: TARGET, client, %endpoint, reason, "a health check failed");
            }
            None => {}
        }
        if effect.ends_ejection {
            let nodes = self.watch.checks.nodes(endpoint);
            nodes.iter().for_each(|node| outlier::passed_check(node));
        }
    }
}

async fn sleep(until: Option<Timestamp>) {
    match until {
        Some(at) => sleep_until(clock::after(at.since(clock::now()))).await,
        None => future::pending().await,
    }
}
