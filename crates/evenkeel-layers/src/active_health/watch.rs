//! What observes the nodes of all balancers that one layer and its clones have made.

use std::{
    future::Future,
    sync::{Arc, Mutex, Weak},
};

use evenkeel_core::{
    health::check::{CheckRules, Checks},
    node::Node,
    observe::{Observer, Report},
    rng::Rng,
};
use evenkeel_metrics::Client;
use tokio::{runtime::Handle, sync::Notify};

use crate::{
    background::{self, Task},
    observers::observers_of,
};

/// What is known of the endpoints, and what is told of changes.
pub(super) struct Watch {
    pub(super) checks: Checks,
    /// Something may have to be done before the planned time.
    pub(super) attention: Notify,
    pub(super) seed: Option<u64>,
    running: Mutex<Weak<Running>>,
    pub(super) client: Client,
}

/// The task that probes. It ends with the last owner.
#[derive(Default)]
pub(super) struct Running(Mutex<Option<Task>>);

impl Running {
    /// Starts the task that `make` makes. Starts it again if its runtime has ended, or may rest.
    pub(super) fn start<F>(&self, runtime: &Handle, make: impl FnOnce() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        background::start(&mut self.0.lock().expect("no panic under the lock"), runtime, make);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let task = self.0.get_mut().expect("no panic under the lock").take();
        if let Some(task) = task {
            task.abort();
        }
    }
}

impl Watch {
    pub(super) fn new(rules: CheckRules, seed: Option<u64>) -> Self {
        let rng = seed.map_or_else(Rng::from_entropy, Rng::with_seed);
        Self {
            checks: Checks::new(rules, rng),
            attention: Notify::new(),
            seed,
            running: Mutex::default(),
            client: Client::current(),
        }
    }

    /// What keeps the task running. Made again if nothing holds it any more.
    pub(super) fn running(&self) -> Arc<Running> {
        let mut known = self.running.lock().expect("no panic under the lock");
        known.upgrade().unwrap_or_else(|| {
            let running = Arc::new(Running::default());
            *known = Arc::downgrade(&running);
            running
        })
    }

    /// Notices requests to `node` as well, if idle endpoints are probed less often.
    pub(super) fn listen(self: &Arc<Self>, node: &Node) {
        let is_needed = self.checks.rules().interval_idle.is_some();
        if is_needed && !observers_of::<Traffic>(node).any(|known| Arc::ptr_eq(&known.0, self)) {
            node.observe(Arc::new(Traffic(self.clone())));
        }
    }
}

/// Notices that there are requests.
struct Traffic(Arc<Watch>);

impl Observer for Traffic {
    fn ended(&self, _: &Node, _: &Report) {
        if self.0.checks.record_request() {
            self.0.attention.notify_one();
        }
    }
}
