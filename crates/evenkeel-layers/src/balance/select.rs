//! What happens when the chosen service is not ready: others are asked, and the first to be ready
//! is used.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use evenkeel_core::{
    BoxError,
    attempt::Attempt,
    endpoint::Address,
    error::{AllEndpointsExcluded, NoEndpointPicked, NoRuntime},
    node::{Gate, Node},
    rng::Rng,
    traffic::{Hints, Tried},
    why::Why,
};
use futures_util::FutureExt;
use tokio::{runtime::Handle, task::yield_now, time::timeout};

use super::{
    ask_first::About,
    shared::{MAX_AVOIDED, Shared, Slot, Snapshot},
};

/// `Service::poll_ready` of a service, without the type of its requests.
pub(super) type PollReady<S> = fn(&mut S, &mut Context<'_>) -> Poll<Result<(), BoxError>>;

/// How many services are waited for at the same time.
const MAX_CANDIDATES: usize = MAX_AVOIDED;

/// How many services may fail before the caller gets the last error.
const MAX_FAILURES: usize = 8;

/// A service that is ready, and its attempt.
pub(super) type Selected<S> = (S, Attempt<Slot<S>>);

/// What the request says about where it wants to go, kept while it waits.
#[derive(Default)]
pub(super) struct Wish {
    hash: Option<u64>,
    subset: Option<Box<str>>,
    tried: Option<Tried>,
    exclude: Vec<Address>,
    prefer: Vec<Address>,
    why: Option<Why>,
}

impl Wish {
    pub(super) fn new(hints: &Hints<'_>) -> Self {
        Self {
            hash: hints.hash,
            subset: hints.subset.map(Into::into),
            tried: hints.tried.cloned(),
            exclude: hints.exclude.to_vec(),
            prefer: hints.prefer.to_vec(),
            why: hints.why.cloned(),
        }
    }

    /// The endpoint with the best answer, if endpoints are asked before the request.
    async fn best_of_the_asked<S>(&self, shared: &Shared<S>) -> Option<Address> {
        let tried = self.tried.as_ref().map(Tried::ids).unwrap_or_default();
        let about = About { hash: self.hash, tried: &tried, exclude: &self.exclude };
        shared.ask_first.as_ref()?.best(shared, about).await
    }

    fn hints(&self) -> Hints<'_> {
        Hints {
            hash: self.hash,
            subset: self.subset.as_deref(),
            tried: self.tried.as_ref(),
            exclude: &self.exclude,
            prefer: &self.prefer,
            why: self.why.as_ref(),
            ..Hints::default()
        }
    }
}

/// A service that was asked whether it is ready.
pub(super) struct Candidate<S> {
    slot: Arc<Slot<S>>,
    service: S,
}

impl<S: Clone> Candidate<S> {
    pub(super) fn new(slot: Arc<Slot<S>>) -> Self {
        Self { service: slot.service.clone(), slot }
    }
}

/// What was picked before, and what became of it.
pub(super) enum First<S> {
    /// There was no open node.
    NoneOpen,
    /// None is picked yet: endpoints are asked first.
    Asked,
    /// It is not ready.
    Waits(Candidate<S>),
    /// It failed for good. It may be asked again when it has been replaced.
    Failed(BoxError),
}

/// The result of one round of asking.
enum Round<S> {
    Ready(Candidate<S>),
    Failed(BoxError),
    /// Nodes opened, closed or changed.
    Changed,
}

/// Waits until one of several services is ready, as long as a request may wait.
///
/// A candidate whose node closes is dropped. Others are picked while there are any.
pub(super) fn select<S>(
    shared: Arc<Shared<S>>,
    poll_ready: PollReady<S>,
    wish: Wish,
    first: First<S>,
) -> impl Future<Output = Result<Selected<S>, BoxError>>
where
    S: Clone + Send + Sync + 'static,
{
    // Taken now, not when first polled: the caller may drop its clone in between.
    let owner = shared.owner();
    async move {
        let selected = select_in_time(shared, poll_ready, wish, first).await;
        drop(owner);
        selected
    }
}

async fn select_in_time<S>(
    shared: Arc<Shared<S>>,
    poll_ready: PollReady<S>,
    mut wish: Wish,
    first: First<S>,
) -> Result<Selected<S>, BoxError>
where
    S: Clone + Send + Sync + 'static,
{
    Handle::try_current().map_err(|_| NoRuntime::default())?;
    let (candidate, mut error) = match first {
        First::NoneOpen => (None, None),
        First::Asked => {
            wish.prefer.extend(wish.best_of_the_asked(&shared).await);
            (None, None)
        }
        First::Waits(candidate) => (Some(candidate), None),
        First::Failed(error) => (None, Some(error)),
    };
    let wait = async {
        tokio::select! {
            biased;
            selected = wait(&shared, poll_ready, &wish, candidate, &mut error) => selected,
            never = shared.keep_task_driven() => match never {},
        }
    };
    match timeout(shared.max_wait, wait).await {
        Ok(Ok(selected)) => Ok(selected),
        Ok(Err(Unselected::Excluded(excluded))) => {
            Err(shared.log_refusal("all_endpoints_excluded", excluded.into()))
        }
        Ok(Err(Unselected::NonePicked(picked))) => {
            Err(shared.log_refusal("no_endpoint_picked", picked.into()))
        }
        // The last error tells more than that no service was ready.
        Ok(Err(Unselected::Failed)) | Err(_) => Err(error.unwrap_or_else(|| shared.refusal())),
    }
}

/// Why a wait ended without a service.
enum Unselected {
    Excluded(AllEndpointsExcluded),
    NonePicked(NoEndpointPicked),
    /// All services failed. The last error is kept.
    Failed,
}

async fn wait<S>(
    shared: &Arc<Shared<S>>,
    poll_ready: PollReady<S>,
    wish: &Wish,
    first: Option<Candidate<S>>,
    last_error: &mut Option<BoxError>,
) -> Result<Selected<S>, Unselected>
where
    S: Clone + Send + Sync + 'static,
{
    let mut candidates = Vec::from_iter(first);
    let mut failures = 0;
    loop {
        let mut changed = pin!(shared.signals.changed.notified());
        candidates.retain(|Candidate { slot, .. }| {
            shared.is_available(&slot.node) && shared.is_current(slot)
        });
        let is_last = failures == MAX_FAILURES;
        if !is_last {
            // One that failed may be among them again, if it was replaced.
            match fill(shared, wish, &mut candidates) {
                // What was open before and after each pick may have been closed in between.
                Err(Unselected::NonePicked(_)) if changed.as_mut().now_or_never().is_some() => {
                    yield_now().await;
                    continue;
                }
                filled => filled?,
            }
        }
        // Services that are ready now are asked in any case, so there is no error while one would
        // have answered.
        let waits = async {
            if !is_last {
                changed.await;
            }
        };
        match ask(poll_ready, &mut candidates, waits).await {
            Round::Ready(Candidate { slot, service }) => {
                let mut attempt = Attempt::new(slot);
                if admit(&mut attempt) {
                    return Ok((service, attempt));
                }
                // Its gate is closed by now. If an observer forgot to close it, that must not stop
                // all others.
                yield_now().await;
            }
            Round::Changed if is_last => return Err(Unselected::Failed),
            Round::Changed => {}
            Round::Failed(error) => {
                *last_error = Some(error);
                let candidate = candidates.pop().expect("the failed one was moved to the end");
                report_broken(&candidate.slot);
                failures = MAX_FAILURES.min(failures + 1);
                if failures < MAX_FAILURES {
                    match fill(shared, wish, &mut candidates) {
                        // Looks again, and watches for changes meanwhile.
                        Err(Unselected::NonePicked(_)) => continue,
                        filled => filled?,
                    }
                }
                if candidates.is_empty() {
                    return Err(Unselected::Failed);
                }
            }
        }
    }
}

/// Whether the request may leave: its node is open and admits it, or is used because none is open.
#[inline]
pub(super) fn admit<S>(attempt: &mut Attempt<Slot<S>>) -> bool {
    attempt.admit() || admit_failing_open(attempt)
}

#[cold]
fn admit_failing_open<S>(attempt: &mut Attempt<Slot<S>>) -> bool {
    let slot = attempt.holder();
    !slot.node.is_open() && slot.shared.is_last_resort(&slot.node) && attempt.admit_failing_open()
}

/// Picks until there are enough candidates or no more nodes.
fn fill<S: Clone>(
    shared: &Arc<Shared<S>>,
    wish: &Wish,
    candidates: &mut Vec<Candidate<S>>,
) -> Result<(), Unselected> {
    let snapshot = shared.snapshots.current();
    let mut rng = shared.rng();
    while candidates.len() < MAX_CANDIDATES.min(snapshot.nodes.len()) {
        let avoid: Vec<_> = candidates.iter().map(|candidate| candidate.slot.node.id()).collect();
        match shared.pick(&snapshot, &mut rng, &wish.hints(), &avoid) {
            // It may have closed meanwhile, or the policy ignores gates. Neither is a reason to
            // spin.
            Some(slot) if shared.is_available(&slot.node) => candidates.push(Candidate::new(slot)),
            _ => break,
        }
    }
    if !candidates.is_empty() {
        return Ok(());
    }
    if is_all_excluded(&snapshot.nodes, &wish.exclude) {
        return Err(Unselected::Excluded(AllEndpointsExcluded::default()));
    }
    if is_none_picked(shared, &snapshot, &mut rng, wish) {
        let open = snapshot.nodes.iter().filter(|node| node.is_open()).count();
        return Err(Unselected::NonePicked(NoEndpointPicked::new(shared.policy, open)));
    }
    Ok(())
}

/// Whether the policy picks no open node though one is open all the time.
///
/// The policy is asked again, since the open node may not have been open yet when it picked none.
/// It is asked more than once, since what it picks may close at that moment.
fn is_none_picked<S>(
    shared: &Shared<S>,
    snapshot: &Snapshot<S>,
    rng: &mut Rng,
    wish: &Wish,
) -> bool {
    const PICKS: usize = 3;
    let is_fit =
        |slot: &Arc<Slot<S>>| slot.node.is_open() && !wish.exclude.contains(slot.node.address());
    let Some(open) = snapshot.slots.iter().filter_map(Weak::upgrade).find(is_fit) else {
        return false;
    };
    let mut picks_none = || {
        let picked = shared.pick(snapshot, rng, &wish.hints(), &[]);
        picked.is_none_or(|slot| !shared.is_available(&slot.node))
    };
    (0..PICKS).all(|_| picks_none()) && open.node.is_open()
}

/// Whether nodes are open, but the request excludes every one of them.
fn is_all_excluded(nodes: &[Arc<Node>], exclude: &[Address]) -> bool {
    let mut open = nodes.iter().filter(|node| node.is_open()).peekable();
    open.peek().is_some() && open.all(|node| exclude.contains(node.address()))
}

/// Asks all candidates until one is ready, one has failed, or something has changed. A node that
/// closed is not given the request, even if its service is ready.
///
/// A candidate that failed is moved to the end.
async fn ask<S>(
    poll_ready: PollReady<S>,
    candidates: &mut Vec<Candidate<S>>,
    changed: impl Future<Output = ()>,
) -> Round<S> {
    let mut changed = pin!(changed);
    poll_fn(|cx| {
        for index in 0..candidates.len() {
            let slot = &candidates[index].slot;
            if !slot.shared.is_available(&slot.node) {
                return Poll::Ready(Round::Changed);
            }
            match poll_ready(&mut candidates[index].service, cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => {
                    return Poll::Ready(Round::Ready(candidates.swap_remove(index)));
                }
                Poll::Ready(Err(error)) => {
                    let failed = candidates.remove(index);
                    candidates.push(failed);
                    return Poll::Ready(Round::Failed(error));
                }
            }
        }
        changed.as_mut().poll(cx).map(|()| Round::Changed)
    })
    .await
}

/// Reports a service that failed for good. It is not asked again: the pool makes a new one.
///
/// A service that was replaced already is ignored.
pub(super) fn report_broken<S>(slot: &Slot<S>) {
    if slot.shared.is_current(slot) && slot.node.close(Gate::Broken) {
        slot.shared.signals.attention.notify_one();
    }
    slot.node.unreachable();
}
