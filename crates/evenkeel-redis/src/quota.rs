//! A quota that all machines share.

use std::{
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, OnceLock},
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    error::RateLimited,
    quota::{Draw, Grant, Plan, QuotaState, Rate},
};
use evenkeel_net::Dialer;
use redis::{Client, ConnectionAddr};
use tokio::{runtime::Handle, time::timeout};

use crate::{
    clock,
    reach::{Reach, TARGET},
    server::Server,
    slots::{Slot, Slots},
};

/// What happens to requests while Redis does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failing {
    /// They go through, unlimited. The default, since a quota must not take a service down.
    #[default]
    LetThrough,
    /// They are refused, and told to try again when Redis will be asked again.
    Refuse,
    /// Each process limits them locally, at this rate for each key: for example the total rate
    /// divided by the number of machines.
    Local(Rate),
}

/// A quota on Redis, shared by all processes that use the same name.
///
/// Cheap to clone. See the [crate docs](crate).
#[derive(Clone)]
pub struct RedisQuota {
    client: Client,
    dialer: Dialer,
    rules: Rules,
    running: Arc<OnceLock<Arc<Running>>>,
}

#[derive(Clone, Debug)]
struct Rules {
    name: Box<str>,
    rate: Rate,
    plan: Plan,
    max_keys: usize,
    timeout: Duration,
    rest: Duration,
    failing: Failing,
}

/// TLS is ours, so what a client has of it would be lost.
fn check_tls(client: &Client) -> Result<(), &'static str> {
    match client.get_connection_info().addr() {
        ConnectionAddr::TcpTls { insecure: true, .. } => {
            Err("a server is always verified: set its authority with RedisQuota::tls")
        }
        ConnectionAddr::TcpTls { tls_params: Some(_), .. } => {
            Err("TLS parameters of the client are not used: set them with RedisQuota::tls")
        }
        ConnectionAddr::TcpTls { .. } if !cfg!(feature = "tls") => {
            Err("TLS needs the feature `tls` of evenkeel-redis")
        }
        _ => Ok(()),
    }
}

/// What the clones share.
struct Running {
    rules: Rules,
    server: Server,
    slots: Slots,
    reach: Reach,
}

impl RedisQuota {
    /// The quota named `name` at `url`, such as `redis://10.0.0.1:6379`.
    ///
    /// Nothing is connected before the first request. All processes that share it must give it the
    /// same rate.
    ///
    /// # Errors
    /// If `url` is not a URL of a Redis server, or is one of TLS and the feature `tls` is off.
    pub fn open(url: &str, name: &str, rate: Rate) -> Result<Self, BoxError> {
        let client = Client::open(url)?;
        check_tls(&client)?;
        Ok(Self::from_client(client, name, rate))
    }

    /// The quota named `name`, over a client of your own, for options that a URL cannot express.
    ///
    /// Its address, database, user, password and protocol are used. Connections are made by evenkeel-net: without
    /// delay (`TCP_NODELAY`), and probed after 5 s of silence.
    ///
    /// # Panics
    /// If the client has TLS parameters, or verifies no certificate: TLS is set with `tls`. If it uses TLS and the
    /// feature `tls` is off.
    #[must_use]
    pub fn from_client(client: Client, name: &str, rate: Rate) -> Self {
        check_tls(&client).unwrap_or_else(|reason| panic!("{reason}"));
        let max_batch = (rate.burst_size() / 10).clamp(1, 100);
        let rules = Rules {
            name: name.into(),
            rate,
            plan: Plan::adaptive(max_batch, Duration::from_millis(50)),
            max_keys: 10_000,
            timeout: Duration::from_millis(50),
            rest: Duration::from_millis(250),
            failing: Failing::default(),
        };
        Self { client, dialer: Dialer::new(), rules, running: Arc::default() }
    }

    /// Sets how many requests are fetched at a time, and so by how many each process may exceed the
    /// quota in some span of time. Default: adaptive, up to a tenth of the burst and no more than
    /// 100, in 50 milliseconds.
    ///
    /// One at a time is exact and costs a round trip for each request. Batches near the burst let
    /// one process take all of it.
    #[must_use]
    pub fn plan(self, plan: Plan) -> Self {
        self.with(|rules| rules.plan = plan)
    }

    /// Sets how many keys are known at the same time, rounded up to eight. Default: 10,000.
    ///
    /// A key takes about 250 bytes and its name. A key that is forgotten loses what was fetched for
    /// it and asks Redis again.
    ///
    /// # Panics
    /// If `max_keys` is zero.
    #[must_use]
    pub fn max_keys(self, max_keys: usize) -> Self {
        assert!(0 < max_keys, "room for one key at least");
        self.with(|rules| rules.max_keys = max_keys)
    }

    /// Sets how long a request waits for Redis at most. Default: 50 milliseconds.
    ///
    /// If it is too short, a hiccup of the network counts as a failure; if too long, requests wait
    /// through every hiccup.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|rules| rules.timeout = timeout)
    }

    /// Sets how a server behind `rediss://` is verified, and how this side proves its identity. Default: trusts
    /// the system's authorities. The crypto provider is that of the process (`CryptoProvider::install_default`), or
    /// [`Tls::crypto`](evenkeel_net::Tls::crypto).
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: evenkeel_net::Tls) -> Self {
        self.dialer = self.dialer.tls(tls);
        self.with(|_| ())
    }

    /// Sets how long no request asks Redis after it failed. Default: 250 milliseconds.
    ///
    /// After that one request asks; the others do not wait for it.
    #[must_use]
    pub fn rest(self, rest: Duration) -> Self {
        self.with(|rules| rules.rest = rest)
    }

    /// Sets what happens to requests while Redis does not answer. Default: they go through.
    #[must_use]
    pub fn failing(self, failing: Failing) -> Self {
        self.with(|rules| rules.failing = failing)
    }

    /// The rate that all processes together may spend, for each key.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.rules.rate
    }

    /// Whether Redis answered the last question, or was never asked.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        self.running.get().is_none_or(|running| running.reach.is_up())
    }

    /// Spends one request of `key`'s quota. Only the first 256 bytes of a key count.
    ///
    /// # Errors
    /// [`RateLimited`] if nothing is left, or if Redis does not answer and such requests are
    /// refused.
    pub async fn spend(&self, key: &[u8]) -> Result<QuotaState, RateLimited> {
        match self.start_spending(key) {
            Spending::Known(spent) => spent,
            Spending::Asking(asking) => asking.await,
        }
    }

    /// Spends a request that is already fetched, or asks for more.
    pub(crate) fn start_spending(&self, key: &[u8]) -> Spending {
        let running = self.running();
        let slot = running.slots.slot(key);
        match running.draw(&slot) {
            Some(spent) => Spending::Known(spent),
            None => Spending::Asking(Box::pin(running.clone().wait(slot))),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Rules)) -> Self {
        change(&mut self.rules);
        self.running = Arc::default();
        self
    }

    fn running(&self) -> &Arc<Running> {
        self.running.get_or_init(|| {
            let rules = self.rules.clone();
            let prefix = format!("evenkeel:quota:{}:", rules.name);
            Arc::new(Running {
                server: Server::new(self.client.clone(), self.dialer.clone(), rules.timeout),
                slots: Slots::new(&prefix, rules.plan, rules.max_keys),
                reach: Reach::new(&rules.name, rules.rest),
                rules,
            })
        })
    }
}

impl Running {
    /// Spends one request; none if the caller has to wait.
    fn draw(self: &Arc<Self>, slot: &Arc<Slot>) -> Option<Result<QuotaState, RateLimited>> {
        let now = clock::now();
        let draw = slot.lock().allowance.draw(now);
        let rate = self.rules.rate;
        let (spent, fetch) = match draw {
            Draw::Refused(wait) => return Some(Err(RateLimited::new(wait, rate))),
            Draw::Wait => return None,
            Draw::Fetch(wanted) => (None, Some(wanted)),
            Draw::Spent { remaining, fetch } => (Some(QuotaState::new(rate, remaining)), fetch),
        };
        let is_asked = fetch.is_some_and(|wanted| self.fetch(slot, wanted));
        match spent {
            None if !is_asked => Some(self.stand_in(slot)),
            spent => spent.map(Ok),
        }
    }

    /// Fetches `wanted` requests in a task of its own, since the request that began it may be
    /// dropped. False if Redis may not be asked now.
    fn fetch(self: &Arc<Self>, slot: &Arc<Slot>, wanted: u32) -> bool {
        let mut fetching = Fetching { slot: slot.clone(), grant: None };
        let Ok(runtime) = Handle::try_current() else { return false };
        if !self.reach.may_ask(clock::now()) {
            return false;
        }
        let running = self.clone();
        runtime.spawn(async move {
            let taken = running.server.take(&fetching.slot.key, &running.rules.rate, wanted).await;
            match taken {
                Ok(grant) => {
                    running.reach.record_answer();
                    fetching.add_grant(grant);
                }
                Err(error) => running.reach.record_failure(clock::now(), error.as_ref()),
            }
        });
        true
    }

    /// Waits for the fetch under way, for at most the timeout.
    async fn wait(self: Arc<Self>, slot: Arc<Slot>) -> Result<QuotaState, RateLimited> {
        let in_time = timeout(self.rules.timeout, async {
            loop {
                let mut changed = pin!(slot.changed.notified());
                changed.as_mut().enable();
                if !self.reach.is_up() {
                    return None;
                }
                match self.draw(&slot) {
                    Some(spent) => return Some(spent),
                    None => changed.await,
                }
            }
        });
        in_time.await.ok().flatten().unwrap_or_else(|| self.stand_in(&slot))
    }

    /// Decides about a request for which Redis could not be asked.
    fn stand_in(&self, slot: &Slot) -> Result<QuotaState, RateLimited> {
        let Rules { name, rate, rest, failing, .. } = &self.rules;
        let spent = match failing {
            Failing::LetThrough => Ok(QuotaState::new(*rate, 0)),
            Failing::Refuse => Err(RateLimited::new(*rest, *rate)),
            Failing::Local(local) => {
                let grant = slot.lock().bucket.take(local, clock::now(), 1);
                match grant.tokens {
                    0 => Err(RateLimited::new(grant.retry_after, *local)),
                    _ => Ok(QuotaState::new(*local, grant.remaining)),
                }
            }
        };
        let is_allowed = spent.is_ok();
        evenkeel_metrics::count_quota_failure(is_allowed);
        tracing::debug!(target: TARGET, quota = &**name, is_allowed, "redis could not be asked");
        spent
    }
}

/// The outcome of spending a request.
pub(crate) enum Spending {
    Known(Result<QuotaState, RateLimited>),
    /// Waits for the answer of Redis.
    Asking(Asking),
}

pub(crate) type Asking = Pin<Box<dyn Future<Output = Result<QuotaState, RateLimited>> + Send>>;

/// A fetch under way. However it ends, the waiting requests are woken.
struct Fetching {
    slot: Arc<Slot>,
    grant: Option<Grant>,
}

impl Fetching {
    fn add_grant(&mut self, grant: Grant) {
        self.grant = Some(grant);
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        let mut state = self.slot.lock();
        match &self.grant {
            Some(grant) => state.allowance.add_grant(clock::now(), grant),
            None => state.allowance.record_failure(),
        }
        drop(state);
        self.slot.changed.notify_waiters();
    }
}

impl fmt::Debug for RedisQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the client: its URL may hold a password.
        f.debug_struct("RedisQuota")
            .field("rules", &self.rules)
            .field("is_reachable", &self.is_reachable())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use std::collections::BTreeMap;

    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;

    /// The metrics after `calls` requests without a runtime, so that Redis cannot be asked.
    fn counted(failing: Failing, calls: usize) -> BTreeMap<String, u64> {
        let recorder = DebuggingRecorder::new();
        metrics::with_local_recorder(&recorder, || {
            let rate = Rate::per_second(100);
            let quota = RedisQuota::open("redis://127.0.0.1:0", "test", rate).expect("a URL");
            let quota = quota.failing(failing);
            for _ in 0..calls {
                assert!(matches!(quota.start_spending(b"key"), Spending::Known(_)));
            }
        });
        let counted = recorder.snapshotter().snapshot().into_vec().into_iter();
        let count = |value| if let DebugValue::Counter(count) = value { count } else { 0 };
        counted.map(|(key, .., value)| (key.key().to_string(), count(value))).collect()
    }

    #[test]
    fn requests_without_redis_are_counted_by_what_became_of_them() {
        let name = |action| format!("Key(evenkeel.quota.failures, [action = {action}])");
        let (allowed, refused) = (name("allowed"), name("refused"));

        let local = Failing::Local(Rate::per_second(10).burst(2));
        assert_eq!(counted(Failing::LetThrough, 3), [(allowed.clone(), 3)].into());
        assert_eq!(counted(Failing::Refuse, 3), [(refused.clone(), 3)].into());
        assert_eq!(counted(local, 3), [(allowed, 2), (refused, 1)].into());
    }
}
