//! The memory of an endpoint, without the service that speaks to it.

use std::sync::Arc;

use evenkeel_core::{node::Node, policy};
use evenkeel_layers::balance::BalanceLayer;
use tower::{Layer, Service, ServiceExt};

use crate::{
    leaf::{Nothing, endpoints},
    measure::local_runtime,
    peers::tower_balance,
    print,
};

const ENDPOINTS: usize = 10_000;
const MAX_BYTES: f64 = 1_024.0;

pub(crate) fn run() {
    print::title(
        "memory",
        "Live heap bytes of an endpoint in a balancer of 10,000, as asked of the allocator, around a\n\
         service of no size. It is what 10,000 cost more than 0, after the first request.",
    );
    print::head("", &["bytes"]);
    let mut largest = 0.0_f64;
    for policy in policy::BUILT_IN {
        let name = policy.name;
        let bytes = an_endpoint(|count| {
            let layer = BalanceLayer::with_policy(endpoints(count), policy.make());
            layer.max_wait(std::time::Duration::ZERO).layer(|_: &Arc<Node>| Nothing)
        });
        print::row(name, &[format!("{bytes:.0}")]);
        // Its 160 points of nine bytes each are larger than everything else.
        if name != "ketama" {
            largest = largest.max(bytes);
        }
    }
    let bytes = an_endpoint(|count| tower_balance::pending(&Nothing, count));
    print::row("tower Balance", &[format!("{bytes:.0}")]);
    println!();
    print::at_most("an endpoint, any policy but ketama", largest, MAX_BYTES, "bytes");
}

fn an_endpoint<S: Service<u64>>(make: impl Fn(usize) -> S) -> f64 {
    (live(&make, ENDPOINTS) - live(&make, 1)) as f64 / (ENDPOINTS - 1) as f64
}

/// The bytes that are allocated once a balancer of this many endpoints is ready.
fn live<S: Service<u64>>(make: impl Fn(usize) -> S, count: usize) -> i64 {
    let runtime = local_runtime();
    let mut balance = None;
    let counted = allocation_counter::measure(|| {
        balance = Some(runtime.block_on(async {
            let mut balance = make(count);
            drop(balance.ready().await);
            balance
        }));
    });
    drop(balance);
    counted.bytes_current
}
