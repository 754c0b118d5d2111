//! Drawing nodes at random, fairly among those that are admitted.

use std::sync::Arc;

use super::PickContext;
use crate::node::Node;

/// How many draws may hit closed nodes before the open ones are searched for.
const DRAWS: usize = 8;

/// A uniform draw among the admitted nodes.
#[inline]
pub(super) fn one(nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<usize> {
    if nodes.is_empty() {
        return None;
    }
    let index = cx.rng.below(nodes.len());
    if cx.admits(&nodes[index]) { Some(index) } else { one_among_closed(nodes, cx, None) }
}

/// Two distinct admitted nodes. The second is `None` if there is only one.
// Always inlined, since it is all that the pickers calling it do.
#[inline(always)]
pub(super) fn two(nodes: &[Arc<Node>], cx: &mut PickContext<'_>) -> Option<(usize, Option<usize>)> {
    if let [node] = nodes {
        return cx.admits(node).then_some((0, None));
    }
    if !nodes.is_empty() {
        let (first, second) = cx.rng.two_below(nodes.len());
        if cx.admits(&nodes[first]) && cx.admits(&nodes[second]) {
            return Some((first, Some(second)));
        }
    }
    two_among_closed(nodes, cx)
}

/// Kept out of [`two`], which is small enough to be inlined without it.
#[cold]
fn two_among_closed(
    nodes: &[Arc<Node>],
    cx: &mut PickContext<'_>,
) -> Option<(usize, Option<usize>)> {
    let first = one(nodes, cx)?;
    Some((first, one_among_closed(nodes, cx, Some(first))))
}

/// A uniform draw among the admitted nodes other than `except`, where many may be closed.
#[cold]
fn one_among_closed(
    nodes: &[Arc<Node>],
    cx: &mut PickContext<'_>,
    except: Option<usize>,
) -> Option<usize> {
    for _ in 0..DRAWS {
        let index = cx.rng.below(nodes.len());
        if Some(index) != except && cx.admits(&nodes[index]) {
            return Some(index);
        }
    }
    scan(nodes, cx, except, |_| 1)
}

/// A draw by weight among the admitted nodes other than `except`, in one pass over all.
///
/// Reservoir sampling: the k-th candidate replaces the chosen one with probability `weight / sum`.
#[cold]
pub(super) fn scan(
    nodes: &[Arc<Node>],
    cx: &mut PickContext<'_>,
    except: Option<usize>,
    weight: impl Fn(&Node) -> u64,
) -> Option<usize> {
    let mut chosen = None;
    let mut sum = 0;
    for (index, node) in nodes.iter().enumerate() {
        if Some(index) == except || !cx.admits(node) {
            continue;
        }
        let weight = weight(node);
        sum += weight;
        if 0 < weight && cx.rng.below_u64(sum) < weight {
            chosen = Some(index);
        }
    }
    chosen
}
