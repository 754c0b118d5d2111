//! Counts of fit nodes under threads, tried in every interleaving by a model checker.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p evenkeel-core --test loom_census --release`

use std::sync::Arc;

use evenkeel_core::{
    endpoint::{Address, Endpoint},
    node::{Gate, Node},
    policy::{P2c, PanicThreshold, Picker, Policy, Tiers},
};
use loom::thread;

fn node(port: u16, tier: u32) -> Arc<Node> {
    let address = Address::from(std::net::SocketAddr::from(([10, 0, 0, 1], port)));
    Arc::new(Node::new(Endpoint::new(address).priority(tier)))
}

/// Whether exactly one of two nodes is fit, as seen by a picker that panics below two.
fn one_is_fit(picker: &dyn Picker, nodes: &[Arc<Node>]) -> bool {
    picker.panics(&nodes[0])
}

#[test]
fn two_gates_that_change_at_once_leave_the_count_right() {
    loom::model(|| {
        let nodes = [node(1, 0), node(2, 0)];
        let picker = PanicThreshold::new(100, P2c).build(&nodes, None);
        let threads = [Gate::Ejected, Gate::Unhealthy].map(|gate| {
            let node = nodes[0].clone();
            thread::spawn(move || {
                node.close(gate);
                if gate == Gate::Ejected {
                    node.open(gate);
                }
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());

        assert!(one_is_fit(&*picker, &nodes), "it is unhealthy");
        nodes[0].open(Gate::Unhealthy);
        assert!(!one_is_fit(&*picker, &nodes));
    });
}

#[test]
fn a_gate_that_changes_while_a_picker_is_built_is_counted() {
    loom::model(|| {
        let nodes = [node(1, 0), node(2, 0)];
        let closes = {
            let node = nodes[0].clone();
            thread::spawn(move || node.close(Gate::Breaker))
        };
        let picker = PanicThreshold::new(100, P2c).build(&nodes, None);
        closes.join().unwrap();

        assert!(one_is_fit(&*picker, &nodes));
    });
}

#[test]
fn a_gate_that_changes_while_its_node_moves_to_another_tier_is_counted_there() {
    loom::model(|| {
        let nodes = [node(1, 0), node(2, 1)];
        let policy = Tiers::new(P2c).overprovisioning(100).panic_threshold(100);
        let picker = policy.build(&nodes, None);
        let closes = {
            let node = nodes[0].clone();
            thread::spawn(move || node.close(Gate::Ejected))
        };
        nodes[0].update((*nodes[0].endpoint()).clone().priority(1));
        let picker = policy.build(&nodes, Some(&*picker));
        closes.join().unwrap();

        // One of two in the only tier is fit, and the picker panics if fewer than all are.
        assert!(picker.panics(&nodes[0]));
        nodes[0].open(Gate::Ejected);
        assert!(!picker.panics(&nodes[0]));
    });
}
