//! An endpoint that fails at once looks idle and quick. That must not draw traffic to it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use evenkeel_core::{BoxError, node::Node};
use evenkeel_layers::{balance::BalanceLayer, breaker::CircuitBreakerLayer, outlier::OutlierLayer};
use futures_util::future::join_all;
use tokio::time::sleep;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::balance::probe::{Channel, address};

/// The share of calls that went to `a`, if 64 callers make a hundred calls each in sequence. `a`
/// fails after a millisecond. The four others answer after twenty.
async fn share<S>(client: S, sent: &AtomicUsize) -> f64
where
    S: Service<u32, Response = (), Error = BoxError> + Clone,
{
    let caller = || async {
        for _ in 0..100 {
            _ = client.clone().oneshot(1).await;
        }
    };
    join_all((0..64).map(|_| caller())).await;
    sent.swap(0, SeqCst) as f64 / 6_400.0
}

fn channel() -> Channel {
    Channel::of(&["a", "b", "c", "d", "e"])
}

/// tower's p2c sends it 40 %, with either of its loads.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_fast_gets_at_most_its_share_by_latency_and_little_with_ejection() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let connect = move |node: &Arc<Node>| {
        let (sent, is_failing) = (counted.clone(), *node.address() == address("a"));
        service_fn(move |_: u32| {
            sent.fetch_add(usize::from(is_failing), SeqCst);
            async move {
                sleep(Duration::from_millis(if is_failing { 1 } else { 20 })).await;
                if is_failing { Err(BoxError::from("down")) } else { Ok(()) }
            }
        })
    };

    let by_latency = BalanceLayer::peak_ewma(channel()).seed(1).layer(connect.clone());
    let by_latency = share(by_latency, &sent).await;
    assert!(by_latency <= 0.2, "{by_latency}");

    let ejecting = OutlierLayer::new().seed(1).layer(connect.clone());
    let ejecting = BalanceLayer::p2c(channel()).seed(1).layer(ejecting);
    let ejecting = share(ejecting, &sent).await;
    assert!(ejecting <= 0.02, "{ejecting}");

    let breaking = CircuitBreakerLayer::new().seed(1).layer(connect);
    let breaking = BalanceLayer::least_loaded(channel()).seed(1).layer(breaking);
    let breaking = share(breaking, &sent).await;
    assert!(breaking <= 0.02, "{breaking}");
}
