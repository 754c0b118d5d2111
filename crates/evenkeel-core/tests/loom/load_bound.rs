//! Every interleaving of two picks with bounded load: the known load is right afterwards.

use std::sync::Arc;

use evenkeel_core::{
    node::Node,
    policy::{PickContext, Picker, Policy, Rendezvous},
    rng::Rng,
};
use loom::thread;

fn pick(picker: &dyn Picker, nodes: &[Arc<Node>]) -> usize {
    let mut rng = Rng::with_seed(1);
    let mut cx = PickContext { hash: Some(7), ..PickContext::new(&mut rng) };
    picker.pick(nodes, &mut cx).expect("both are open")
}

#[test]
fn picks_at_the_same_time_lose_nothing_of_the_total() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let nodes: Arc<[_]> = ["10.0.0.1:80", "10.0.0.2:80"]
            .map(|address| Arc::new(Node::new(address.parse().unwrap())))
            .into();
        let picker: Arc<dyn Picker> =
            Rendezvous::new().bounded_load(1.0).build(&nodes, None).into();
        let request = |picker: &dyn Picker, nodes: &[Arc<Node>]| {
            let picked = pick(picker, nodes);
            nodes[picked].enter();
            nodes[picked].exit();
        };

        let (other, theirs) = (picker.clone(), nodes.clone());
        let thread = thread::spawn(move || request(&*other, &theirs));
        request(&*picker, &nodes);
        thread.join().unwrap();

        // Each pick looks at both nodes. With nothing in flight there is room at home, and with one
        // request there is none: a wrong total would change that.
        pick(&*picker, &nodes);
        let home = pick(&*picker, &nodes);
        nodes[home].enter();
        assert_ne!(pick(&*picker, &nodes), home);
        nodes[home].exit();
        assert_eq!(pick(&*picker, &nodes), home);
    });
}
