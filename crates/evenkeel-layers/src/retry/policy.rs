//! Retry policies written for tower.

use std::{
    fmt,
    future::{Future, Ready, ready},
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use evenkeel_core::{
    BoxError,
    retry::{Next, Reach, Replay, Ruled, Rules, Verdict},
};
use tower::retry::Policy;

/// The rules that a [`tower::retry::Policy`] makes. The policy alone decides, and waits as it
/// likes.
pub struct PolicyRules<T, Res> {
    policy: T,
    response: PhantomData<fn(Res)>,
}

impl<T, Res> PolicyRules<T, Res> {
    pub(super) fn new(policy: T) -> Self {
        Self { policy, response: PhantomData }
    }
}

/// A call under a tower policy.
pub struct PolicyCall<T, Req, F> {
    policy: T,
    kept: Option<Req>,
    wait: Option<Pin<Box<F>>>,
}

impl<T, Res, S> Ruled<S> for PolicyRules<T, Res> {}

impl<T, Req, Res> Replay<Req> for PolicyRules<T, Res>
where
    T: Policy<Req, Res, BoxError> + Clone,
    T::Future: Future<Output = ()>,
{
    type Call = PolicyCall<T, Req, T::Future>;
    type Request = Req;

    fn begin(&self, request: Req) -> (Self::Call, Req) {
        let mut policy = self.policy.clone();
        let kept = policy.clone_request(&request);
        (PolicyCall { policy, kept, wait: None }, request)
    }

    fn may_repeat(&self, call: &Self::Call) -> bool {
        call.kept.is_some()
    }

    /// The policy has been asked already.
    fn is_idempotent(&self, _: &Self::Call) -> bool {
        true
    }

    fn again(&self, call: &mut Self::Call, _: Next) -> Option<Req> {
        let request = call.kept.take()?;
        call.kept = call.policy.clone_request(&request);
        Some(request)
    }
}

impl<T, Req, Res> Rules<Req, Res> for PolicyRules<T, Res>
where
    T: Policy<Req, Res, BoxError> + Clone,
{
    type Response = Res;
    type Peek = Ready<Result<Res, BoxError>>;

    fn peek(&self, response: Res) -> Self::Peek {
        ready(Ok(response))
    }

    fn judge(&self, call: &mut Self::Call, result: &mut Result<Res, BoxError>) -> Verdict {
        let wait = call.kept.as_mut().and_then(|request| call.policy.retry(request, result));
        match wait {
            // No delay but the policy's own.
            Some(wait) => {
                call.wait = Some(Box::pin(wait));
                Verdict::Again { reach: Reach::Processed, after: Some(Duration::ZERO) }
            }
            None if result.is_ok() => Verdict::Success,
            None => Verdict::Final,
        }
    }

    fn poll_wait(&self, call: &mut Self::Call, cx: &mut Context<'_>) -> Poll<()> {
        call.wait.as_mut().map_or(Poll::Ready(()), |wait| wait.as_mut().poll(cx))
    }
}

impl<T: Clone, Res> Clone for PolicyRules<T, Res> {
    fn clone(&self) -> Self {
        Self::new(self.policy.clone())
    }
}

impl<T: fmt::Debug, Res> fmt::Debug for PolicyRules<T, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PolicyRules").field(&self.policy).finish()
    }
}

impl<T, Req, F> fmt::Debug for PolicyCall<T, Req, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyCall").field("is_kept", &self.kept.is_some()).finish_non_exhaustive()
    }
}
