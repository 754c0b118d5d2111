//! The common parts of the three clients.

use std::{fmt, sync::Arc, time::Duration};

use evenkeel_core::{
    connect::Connect, discover::Discovery, policy::Policy, retry::Budget, traffic::AnyTraffic,
};
use evenkeel_http::{HttpDeadline, HttpRetry};
use evenkeel_layers::{
    balance::{Balance, BalanceLayer},
    concurrency::{ConcurrencyLimit, ConcurrencyLimitLayer},
    deadline::{Deadline, DeadlineLayer},
    outlier::{OutlierConnect, OutlierLayer},
    retry::{Retry, RetryLayer},
};
use evenkeel_metrics::named;
use tower_layer::Layer;

/// The stack of a client, over the services of the endpoints.
pub type Pipeline<C> = Deadline<Retry<Balance<Endpoints<C>>, HttpRetry>, HttpDeadline>;

/// The part below the balancer, one for each endpoint.
type Endpoints<C> = OutlierConnect<ConcurrencyLimit<C, AnyTraffic>>;

const DEADLINE: Duration = Duration::from_secs(5);
const MAX_IN_FLIGHT: u32 = 256;
/// Four attempts, each with its own timeout, would fill the deadline. Three leave time for waits
/// between them.
const ATTEMPTS: u32 = 4;

/// Sets up a client: see [`http()`](crate::http()), [`grpc()`](crate::grpc()) and `reqwest`.
///
/// Each setter except [`name`](Self::name) and [`deadline`](Self::deadline) takes a function, which
/// gets the current layer and returns its replacement: `.retry(|retry| retry.max_attempts(5))`.
#[derive(Clone)]
#[must_use = "a client is made by `build`"]
pub struct ClientBuilder<T> {
    pub(crate) transport: T,
    name: Option<Arc<str>>,
    deadline: Duration,
    retry: RetryLayer<HttpRetry>,
    balance: BalanceLayer,
    outlier: OutlierLayer,
    limit: ConcurrencyLimitLayer,
}

impl<T> ClientBuilder<T> {
    pub(crate) fn new(discovery: impl Discovery, rules: HttpRetry, transport: T) -> Self {
        Self {
            transport,
            name: None,
            deadline: DEADLINE,
            retry: RetryLayer::new(Budget::share(20.0))
                .rules(rules)
                .attempt_timeout(DEADLINE / ATTEMPTS),
            balance: BalanceLayer::peak_ewma(discovery),
            outlier: OutlierLayer::new().consecutive_local_errors(1),
            limit: ConcurrencyLimitLayer::fixed(MAX_IN_FLIGHT),
        }
    }

    /// Sets the name of this client in metrics, events and spans. Default: none. See [`named`].
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets how long a call may take until the head of its response, including retries.
    /// Default: 5 s.
    ///
    /// One attempt may take a quarter of the deadline, so that a call survives an endpoint that
    /// never answers. To change that share, call [`retry`](Self::retry) with
    /// [`RetryLayer::attempt_timeout`] after this.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self.retry = self.retry.attempt_timeout(deadline / ATTEMPTS);
        self
    }

    /// Changes the retries.
    pub fn retry(
        mut self,
        change: impl FnOnce(RetryLayer<HttpRetry>) -> RetryLayer<HttpRetry>,
    ) -> Self {
        self.retry = change(self.retry);
        self
    }

    /// Sets the policy, which picks an endpoint for each request. Default:
    /// [`PeakEwma`](evenkeel_core::policy::PeakEwma), the one of two random endpoints that costs less latency.
    pub fn policy(self, policy: impl Policy) -> Self {
        self.balance(|balance| balance.policy(policy))
    }

    /// Changes the balancer.
    pub fn balance(mut self, change: impl FnOnce(BalanceLayer) -> BalanceLayer) -> Self {
        self.balance = change(self.balance);
        self
    }

    /// Changes the outlier detection.
    pub fn outlier(mut self, change: impl FnOnce(OutlierLayer) -> OutlierLayer) -> Self {
        self.outlier = change(self.outlier);
        self
    }

    /// Changes the limit of each endpoint: `.limit(|_| ConcurrencyLimitLayer::vegas())`.
    pub fn limit(
        mut self,
        change: impl FnOnce(ConcurrencyLimitLayer) -> ConcurrencyLimitLayer,
    ) -> Self {
        self.limit = change(self.limit);
        self
    }

    /// Builds the stack over `connect`, under the client's name.
    pub(crate) fn stack<C>(&self, connect: C) -> Pipeline<C>
    where
        C: Connect + Send + Sync + 'static,
        C::Service: Send + Sync + 'static,
    {
        let build = || {
            let endpoints = self.outlier.layer(self.limit.layer(connect));
            let attempts = self.retry.layer(self.balance.layer(endpoints));
            DeadlineLayer::new(self.deadline).carry(HttpDeadline).layer(attempts)
        };
        match &self.name {
            Some(name) => named(name.clone(), build),
            None => build(),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for ClientBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("name", &self.name)
            .field("deadline", &self.deadline)
            .field("retry", &self.retry)
            .field("balance", &self.balance)
            .field("outlier", &self.outlier)
            .field("limit", &self.limit)
            .field("transport", &self.transport)
            .finish()
    }
}
