//! What a balancer may read from the requests and responses it carries.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{attempt::Attempt, endpoint::Address, outcome::Outcome, why::Why};

/// What a balancer may read from requests of type `Req` and their results.
pub trait Traffic<Req, Res, Err>: Clone + Send + Sync + 'static {
    /// The response that the caller gets: `Res`, or `Res` with the attempt inside until its body ends.
    type Response;

    /// Where the request asks to go.
    fn hints<'a>(&self, request: &'a Req) -> Hints<'a>;

    /// The nodes that the call has tried: the same as in [`hints`](Self::hints), without the rest.
    #[inline]
    fn tried<'a>(&self, request: &'a Req) -> Option<&'a Tried> {
        self.hints(request).tried
    }

    /// Whether the request's latency says nothing: the same as in [`hints`](Self::hints), without
    /// the rest.
    #[inline]
    fn is_untimed(&self, request: &Req) -> bool {
        self.hints(request).is_untimed
    }

    /// Ends the attempt with the outcome that the result shows, now or when the response has ended.
    ///
    /// # Errors
    /// The error of the result itself.
    fn finish(&self, attempt: Attempt, result: Result<Res, Err>) -> Result<Self::Response, Err>;
}

/// Traffic of an unknown protocol: no hints, and an error is a failure.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnyTraffic;

impl<Req, Res, Err> Traffic<Req, Res, Err> for AnyTraffic {
    type Response = Res;

    #[inline]
    fn hints<'a>(&self, _: &'a Req) -> Hints<'a> {
        Hints::default()
    }

    #[inline(always)]
    fn finish(&self, attempt: Attempt, result: Result<Res, Err>) -> Result<Res, Err> {
        attempt.finish(if result.is_ok() { Outcome::Success } else { Outcome::Failure });
        result
    }
}

/// Where a request asks to go. Empty by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hints<'a> {
    /// Under a policy that hashes, requests of the same hash go to the same endpoint.
    ///
    /// The hash is a place on a ring, so it must be spread over all 64 bits, as
    /// [`xxh64`](crate::hash::xxh64) of a key is. Numbers in sequence all land in one place.
    /// Requests with `None` each go to a random endpoint.
    pub hash: Option<u64>,
    /// The name of the subset of endpoints that the request asks for, under a policy that splits.
    pub subset: Option<&'a str>,
    /// The nodes that this call has tried. They are avoided while another is open. The picked node
    /// is added.
    pub tried: Option<&'a Tried>,
    /// Endpoints that must not be used.
    pub exclude: &'a [Address],
    /// Endpoints that are used before the policy is asked: the first open one gets the request.
    pub prefer: &'a [Address],
    /// The request's latency says nothing of the endpoint: a long poll, which is answered when
    /// there is news.
    pub is_untimed: bool,
    /// Where to record why the request goes where it goes; `None` if that is not wanted.
    pub why: Option<&'a Why>,
}

/// The nodes that one call has tried, shared by all its attempts.
///
/// Put the same one into every attempt of a call. Then no attempt goes to a node that was tried
/// before while another is open. It remembers the last eight.
///
/// ```
/// use evenkeel::core::traffic::Tried;
///
/// let tried = Tried::default();
/// tried.add(7);
/// assert!(tried.clone().ids().contains(&7));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Tried(Arc<Ring>);

#[derive(Debug, Default)]
struct Ring {
    count: AtomicU64,
    ids: [AtomicU64; Tried::MAX],
}

impl Tried {
    /// How many nodes are remembered.
    pub const MAX: usize = 8;

    /// Remembers the node of this id.
    pub fn add(&self, id: u64) {
        let position = self.0.count.fetch_add(1, Ordering::Relaxed) as usize;
        self.0.ids[position % Self::MAX].store(id, Ordering::Relaxed);
    }

    /// The ids of the nodes, 0 where there is none.
    #[must_use]
    pub fn ids(&self) -> [u64; Self::MAX] {
        std::array::from_fn(|i| self.0.ids[i].load(Ordering::Relaxed))
    }

    /// How many attempts were added.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }
}
