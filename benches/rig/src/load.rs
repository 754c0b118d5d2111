//! The load: an open loop of calls at random times, and the result of each.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{task::JoinSet, time::sleep_until};

use crate::{BoxError, clock::Origin};

/// When a caller gives up.
pub const DEADLINE: Duration = Duration::from_secs(2);

/// Makes the call with this number, and returns the status of the answer.
pub type Client = Arc<dyn Fn(u64) -> BoxFuture<'static, Result<u16, BoxError>> + Send + Sync>;

/// One call as its caller saw it. Times are since the origin of the load.
#[derive(Clone, Debug)]
pub struct Call {
    /// When the call began.
    pub start: Duration,
    /// When its caller had the answer, or gave up.
    pub end: Duration,
    /// The error, if there was one.
    pub failure: Option<String>,
}

/// A load in progress.
#[derive(Debug)]
pub struct Load {
    is_over: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Load {
    /// Starts to call `client` at random times, `rate` times per second on average.
    #[must_use]
    pub fn start(client: Client, rate: u32, origin: Origin, seed: u64) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let calls = Arc::new(Mutex::default());
        let task = tokio::spawn(run(client, rate, origin, seed, is_over.clone(), calls.clone()));
        Self { is_over, task, calls }
    }

    /// Stops making calls, and waits for those in flight.
    ///
    /// # Errors
    /// If the client panicked.
    pub async fn stop(self) -> Result<Vec<Call>, BoxError> {
        self.is_over.store(true, Relaxed);
        self.task.await?;
        Ok(std::mem::take(&mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

async fn run(
    client: Client,
    rate: u32,
    origin: Origin,
    seed: u64,
    is_over: Arc<AtomicBool>,
    calls: Arc<Mutex<Vec<Call>>>,
) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut under_way = JoinSet::new();
    let mut next = origin.elapsed();
    for number in 0.. {
        // Exponential gaps: the arrivals of many independent callers.
        next += Duration::from_secs_f64(-(1.0 - rng.f64()).ln() / f64::from(rate));
        sleep_until(origin.plus(next)).await;
        if is_over.load(Relaxed) {
            break;
        }
        while under_way.try_join_next().is_some() {}
        let (answer, calls) = (client(number), calls.clone());
        under_way.spawn(async move {
            let call = observe(answer, origin).await;
            calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
        });
    }
    while under_way.join_next().await.is_some() {}
}

async fn observe(answer: BoxFuture<'static, Result<u16, BoxError>>, origin: Origin) -> Call {
    let start = origin.elapsed();
    let failure = match tokio::time::timeout(DEADLINE, answer).await {
        Ok(Ok(status)) if status < 500 => None,
        Ok(Ok(status)) => Some(format!("status {status}")),
        Ok(Err(error)) => Some(chain(&*error)),
        Err(_) => Some("no answer in time".to_owned()),
    };
    Call { start, end: origin.elapsed(), failure }
}

/// Formats an error with its causes.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |error| error.source()) {
        let cause = cause.to_string();
        // Some errors repeat their causes.
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
