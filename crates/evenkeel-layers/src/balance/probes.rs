//! Asks an endpoint for its load.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use evenkeel_core::{BoxError, load::ServerLoad, node::Node, probe::LoadProbe};
use evenkeel_metrics::Client;
use tokio::time::timeout;

/// The target of what is traced.
const TARGET: &str = "evenkeel::balance";

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

    /// What an endpoint answers in time. A `hash` asks on behalf of a request of that hash.
    pub(super) async fn ask(
        &self,
        client: &Client,
        node: &Arc<Node>,
        hash: Option<u64>,
    ) -> Option<ServerLoad> {
        let answer = timeout(self.timeout, self.probe.ask(node.clone(), hash)).await;
        evenkeel_metrics::count_load_probe(client, matches!(answer, Ok(Ok(_))));
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
