//! What a policy that wraps another must pass on.

use std::{
    any::Any,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use super::super::{PickContext, Picker, Policy, Prequal, Probing};
use crate::{
    endpoint::{Address, Endpoint},
    node::Node,
    time::Timestamp,
};

const DECAY: Duration = Duration::from_secs(7);
const SOON: Timestamp = Timestamp::from_nanos(1_000);
const LATE: Timestamp = Timestamp::from_nanos(1_000_000);

/// Checks that a policy passes on what the policy within it needs, and panics with what it keeps to
/// itself.
///
/// `wrap` makes the policy over a child. The nodes differ in tier, zone and label, so one that
/// divides them has several children.
///
/// * [`Policy::latency_decay`] and [`Policy::reads_time`] are those of the child.
/// * [`Picker::tend`] tends each child, and asks to be called again when the first of them does.
/// * [`Picker::each_probing`] visits each child's probing, with the nodes that it was built for.
/// * [`Picker::panics`] if a child panics that was built for the node.
/// * A child is rebuilt from its previous picker.
///
/// ```
/// use evenkeel::core::policy::{Tiers, laws};
///
/// laws::check_wrapping(|child| Box::new(Tiers::new(child)));
/// ```
///
/// # Panics
/// If any of these does not hold.
pub fn check_wrapping(wrap: impl Fn(Box<dyn Policy>) -> Box<dyn Policy>) {
    let built = Arc::<Built>::default();
    let policy = wrap(Box::new(Child { built: built.clone() }));
    let name = policy.name();
    assert_eq!(policy.latency_decay(), Some(DECAY), "{name} forwards latency_decay");
    assert!(policy.reads_time(), "{name} forwards reads_time");

    let nodes = nodes();
    let picker = policy.build(&nodes, None);
    let children = built.take();
    assert!(!children.is_empty(), "{name} builds its child");
    forwards_probing(name, &*picker, &nodes, &children);
    for node in &nodes {
        assert!(!picker.panics(node), "{name} panics although all are well and no child does");
    }
    for child in &children {
        child.is_eager.store(true, Relaxed);
        let due = picker.tend(Timestamp::default());
        assert!(due.is_some_and(|due| due <= SOON), "{name} forwards tend to each child: {due:?}");
        for node in nodes.iter().filter(|node| child.nodes.contains(&node.id())) {
            assert!(picker.panics(node), "{name} forwards panics to each child");
        }
        child.is_eager.store(false, Relaxed);
    }

    policy.build(&nodes, Some(&*picker));
    let rebuilt = built.take();
    let is_rebuilt = rebuilt.iter().all(|child| child.has_previous);
    assert!(is_rebuilt && !rebuilt.is_empty(), "{name} gives each child its previous picker");
}

fn forwards_probing(name: &str, picker: &dyn Picker, nodes: &[Arc<Node>], children: &[Arc<Asked>]) {
    let mut visited = Vec::new();
    picker.each_probing(nodes, &mut |probing, nodes| {
        visited.push((std::ptr::from_ref(probing).addr(), ids(nodes)));
    });
    for child in children {
        let is_visited = visited.iter().any(|(probing, _)| *probing == child.probing);
        assert!(is_visited, "{name} forwards each_probing to each child");
        let is_whole = visited.contains(&(child.probing, child.nodes.clone()));
        assert!(is_whole, "{name} visits the probing of a child with the nodes of that child");
    }
}

/// Each tier, zone and label goes with each of the others.
fn nodes() -> Vec<Arc<Node>> {
    let node = |index: u32| {
        let address = Address::Name { host: format!("node-{index}").into(), port: 80 };
        let (zone, track) = (["here", "there"][index as usize / 2 % 2], ["old", "new"]);
        let endpoint = Endpoint::new(address).priority(index % 2).zone(zone);
        Arc::new(Node::new(endpoint.metadata("track", track[index as usize / 4 % 2])))
    };
    (0..8).map(node).collect()
}

fn ids(nodes: &[Arc<Node>]) -> Vec<u64> {
    nodes.iter().map(|node| node.id()).collect()
}

/// What was built since it was last asked.
#[derive(Debug, Default)]
struct Built(Mutex<Vec<Arc<Asked>>>);

impl Built {
    fn take(&self) -> Vec<Arc<Asked>> {
        std::mem::take(&mut self.0.lock().expect("no panic under the lock"))
    }
}

/// A policy that needs everything that a policy may need.
#[derive(Debug)]
struct Child {
    built: Arc<Built>,
}

/// What a picker of the child was built from, and what it answers.
#[derive(Debug)]
struct Asked {
    nodes: Vec<u64>,
    has_previous: bool,
    /// The address of its probing in memory.
    probing: usize,
    /// Whether it panics, and has to be tended soon.
    is_eager: AtomicBool,
}

impl Policy for Child {
    fn name(&self) -> &'static str {
        "child"
    }

    fn build(&self, nodes: &[Arc<Node>], previous: Option<&dyn Picker>) -> Box<dyn Picker> {
        let probed = Prequal::new().build(nodes, None);
        let probing = probed.probing().expect("it goes by probes");
        let asked = Arc::new(Asked {
            nodes: ids(nodes),
            has_previous: previous.is_some_and(|picker| (picker as &dyn Any).is::<ChildPicker>()),
            probing: std::ptr::from_ref(probing).addr(),
            is_eager: AtomicBool::new(false),
        });
        self.built.0.lock().expect("no panic under the lock").push(asked.clone());
        Box::new(ChildPicker { asked, probed })
    }

    fn latency_decay(&self) -> Option<Duration> {
        Some(DECAY)
    }

    fn reads_time(&self) -> bool {
        true
    }
}

struct ChildPicker {
    asked: Arc<Asked>,
    probed: Box<dyn Picker>,
}

impl Picker for ChildPicker {
    fn pick(&self, nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
        nodes.iter().position(|node| cx.admits(node))
    }

    fn tend(&self, _: Timestamp) -> Option<Timestamp> {
        Some(if self.asked.is_eager.load(Relaxed) { SOON } else { LATE })
    }

    fn probing(&self) -> Option<&Probing> {
        self.probed.probing()
    }

    fn panics(&self, _: &Node) -> bool {
        self.asked.is_eager.load(Relaxed)
    }
}
