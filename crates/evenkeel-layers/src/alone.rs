//! The made-up node of a service that stands alone. Its attempts are counted there.

use std::sync::Arc;

use evenkeel_core::{
    attempt::Holder,
    endpoint::{Address, Endpoint},
    node::Node,
    observe::Observer,
    time::Timestamp,
};

use crate::clock;

/// A made-up node and what observes it.
pub(crate) struct Alone<M> {
    node: Arc<Node>,
    pub(crate) monitor: Arc<M>,
}

/// Observes a made-up node. It may admit attempts by itself, before they are made. That costs less
/// than being asked as one of several observers, of which there are none here.
pub(crate) trait Doorkeeper: Observer {
    /// Whether it is told when each attempt is over.
    const IS_COUNTING: bool = false;

    /// Called when an attempt is over, ended or cancelled.
    fn exit(&self) {}
}

impl<M: Doorkeeper> Alone<M> {
    /// Makes a node, and has it observed by what `observe` makes for it.
    pub(crate) fn new(observe: impl FnOnce(&Arc<Node>) -> Arc<M>) -> Arc<Self> {
        let address = Address::Name { host: "alone".into(), port: 1 };
        let node = Arc::new(Node::new(Endpoint::new(address)));
        let monitor = observe(&node);
        node.observe(monitor.clone());
        Arc::new(Self { node, monitor })
    }

    pub(crate) fn is_open(&self) -> bool {
        self.node.is_open()
    }
}

impl<M: Doorkeeper> Holder for Alone<M> {
    #[inline]
    fn node(&self) -> &Arc<Node> {
        &self.node
    }

    fn now(&self) -> Timestamp {
        clock::now()
    }

    fn recently(&self) -> Timestamp {
        // Only latency estimates need it, and there are none here.
        Timestamp::default()
    }

    #[inline]
    fn is_counted(&self) -> bool {
        // No policy picks this node by its load.
        M::IS_COUNTING
    }

    #[inline]
    fn enter(&self) {}

    #[inline]
    fn exit(&self) {
        self.monitor.exit();
    }
}
