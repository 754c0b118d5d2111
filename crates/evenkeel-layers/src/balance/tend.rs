//! Runs the periodic work of the picker.

use std::{pin::pin, sync::Arc};

use tokio::time::sleep_until;

use super::shared::Shared;
use crate::clock;

/// Runs that of the current picker, until it is dropped.
pub(super) async fn tend<S>(shared: Arc<Shared<S>>) {
    let mut reader = shared.snapshots.reader();
    loop {
        // A published snapshot is signalled as a change, like much else. Checking costs little.
        let mut changed = pin!(shared.signals.changed.notified());
        changed.as_mut().enable();
        let now = clock::now();
        match reader.read(&shared.snapshots).picker.tend(now) {
            Some(again) => {
                let wait = again.since(now);
                tokio::select! {
                    () = changed => {}
                    () = sleep_until(clock::instant() + wait) => {}
                }
            }
            None => changed.await,
        }
    }
}
