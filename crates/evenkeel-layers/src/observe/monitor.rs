//! What is known of one endpoint, or of a service that stands alone: its series and its traces.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use evenkeel_core::{
    endpoint::Address,
    node::{Gate, Node},
    observe::{Observer, Report},
    outcome::Outcome,
};
use evenkeel_metrics::{Client, Series};
use tracing::Span;

use crate::{alone::Doorkeeper, observers::observers_of};

/// What everything made by one layer shares.
#[derive(Debug)]
pub(super) struct Scope {
    client: Client,
    max_endpoints: usize,
    /// The endpoints that have series of their own.
    endpoints: Mutex<HashSet<Address>>,
}

impl Scope {
    pub(super) fn new(client: Client, max_endpoints: usize) -> Self {
        Self { client, max_endpoints, endpoints: Mutex::default() }
    }

    /// Observes `node`, once: a service that is made again continues with what is there.
    pub(super) fn observe(self: &Arc<Self>, node: &Arc<Node>) -> Arc<Monitor> {
        let known = observers_of::<Monitor>(node).find(|known| Arc::ptr_eq(&known.scope, self));
        known.unwrap_or_else(|| {
            let address = node.address();
            let series = if self.has_room_for(address) { Some(address) } else { None };
            let monitor = Arc::new(Monitor {
                series: Series::of_endpoint(series, &self.client),
                address: Some(address.clone()),
                scope: self.clone(),
            });
            node.observe(monitor.clone());
            for gate in node.closed_by() {
                monitor.series.follow(gate, || node.is_closed_by(gate));
            }
            monitor
        })
    }

    /// What observes a service that stands alone.
    #[cold]
    pub(super) fn monitor_alone(self: &Arc<Self>) -> Arc<Monitor> {
        let series = Series::of_client(&self.client);
        Arc::new(Monitor { series, address: None, scope: self.clone() })
    }

    fn has_room_for(&self, address: &Address) -> bool {
        if !evenkeel_metrics::IS_ON {
            return false;
        }
        let mut endpoints = self.endpoints.lock().expect("no panic under the lock");
        let has_room = endpoints.contains(address) || endpoints.len() < self.max_endpoints;
        if has_room {
            endpoints.insert(address.clone());
        }
        has_room
    }
}

/// Observes one node.
#[derive(Debug)]
pub(super) struct Monitor {
    pub(super) series: Series,
    /// `None` if the service stands alone.
    address: Option<Address>,
    scope: Arc<Scope>,
}

impl Monitor {
    /// The span of an attempt or a call.
    #[inline]
    pub(super) fn span(&self) -> Span {
        match &self.address {
            Some(address) => tracing::debug_span!(
                target: "evenkeel::observe",
                "attempt",
                endpoint = %address,
                client = self.scope.client.name(),
                otel.kind = "client",
                otel.status_code = tracing::field::Empty,
            ),
            None => tracing::debug_span!(
                target: "evenkeel::observe",
                "call",
                client = self.scope.client.name(),
                otel.status_code = tracing::field::Empty,
            ),
        }
    }
}

impl Observer for Monitor {
    fn ended(&self, _: &Node, report: &Report) {
        self.series.end(report);
        let failed = report.outcome == Outcome::Failure;
        tracing::debug!(
            target: "evenkeel::observe",
            endpoint = self.address.as_ref().map(tracing::field::display),
            client = self.scope.client.name(),
            outcome = report.outcome.name(),
            "error.type" = failed.then(|| report.fault.name()),
            latency = ?report.latency,
            "{} ended",
            if self.address.is_some() { "attempt" } else { "call" },
        );
    }

    fn ended_late(&self, node: &Node, report: &Report) {
        self.ended(node, report);
    }

    fn gate_changed(&self, node: &Node, gate: Gate) {
        self.series.follow(gate, || node.is_closed_by(gate));
        let is_closed = node.is_closed_by(gate);
        let endpoint = self.address.as_ref().map(tracing::field::display);
        let client = self.scope.client.name();
        let what = if is_closed { "gate closed" } else { "gate opened" };
        match gate {
            Gate::Joining => {}
            Gate::Limit | Gate::RateLimit => {
                tracing::debug!(target: "evenkeel::observe", client, endpoint, gate = gate.name(), "{what}");
            }
            _ => {
                tracing::info!(target: "evenkeel::observe", client, endpoint, gate = gate.name(), "{what}");
            }
        }
    }

    fn is_timing(&self) -> bool {
        // Asked when the endpoint joins: only a subscriber that listens by then gets latencies.
        evenkeel_metrics::IS_ON
            || tracing::enabled!(target: "evenkeel::observe", tracing::Level::DEBUG)
    }
}

impl Doorkeeper for Monitor {}
