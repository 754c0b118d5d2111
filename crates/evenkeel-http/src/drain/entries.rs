//! The entries of a server in its registries, which are removed before it closes.

use std::{error::Error, future::Future, pin::Pin, time::Duration};

use evenkeel_core::BoxError;
use futures_util::future::join_all;
use tokio::time::timeout;

use super::{report::Deregistered, state::TARGET};

/// Removes one entry.
pub(super) type Leave =
    Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>> + Send>;

/// Removes all entries, begun in their order. A registry that hangs does not delay the others.
pub(super) async fn take_out(entries: Vec<Leave>, max: Duration) -> Deregistered {
    let left = join_all(entries.into_iter().map(|entry| take_out_one(entry, max))).await;
    left.into_iter().max().unwrap_or(Deregistered::NotAsked)
}

async fn take_out_one(entry: Leave, max: Duration) -> Deregistered {
    match timeout(max, entry()).await {
        Ok(Ok(())) => Deregistered::Done,
        Ok(Err(error)) => {
            let error = &*error as &(dyn Error + 'static);
            tracing::warn!(target: TARGET, error, "deregistering failed");
            Deregistered::Failed
        }
        Err(_) => {
            tracing::warn!(target: TARGET, after = ?max, "deregistering took too long");
            Deregistered::TimedOut
        }
    }
}
