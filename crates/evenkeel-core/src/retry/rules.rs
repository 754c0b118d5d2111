//! What a protocol says of trying again.

use std::{
    error::Error,
    future::{Future, Ready, ready},
    io::ErrorKind,
    task::{Context, Poll},
    time::Duration,
};

use crate::{
    BoxError,
    error::{
        CircuitOpen, DeadlineExceeded, LimitReached, Overloaded, RateLimited, cause, is_refusal,
    },
    time::Timestamp,
};

/// How far an attempt came that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nothing of it was sent, or the endpoint says that it did nothing with it: always safe to repeat.
    Unprocessed,
    /// It may have been processed: safe to repeat only if that does no harm.
    Processed,
}

/// What the result of an attempt says about another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It succeeded.
    Success,
    /// It failed in a way that another attempt would not change.
    Final,
    /// It failed, and the endpoint forbids another attempt.
    Forbidden,
    /// It failed, and another attempt may succeed, after the delay that the endpoint asks for.
    Again {
        /// Whether it may have been processed.
        reach: Reach,
        /// The delay that the endpoint asks for; none if it says nothing.
        after: Option<Duration>,
    },
}

/// An attempt that is to be made after others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Next {
    /// How many attempts of the call were made before.
    pub previous: u32,
    /// Whether no other can follow, so that what was kept of the request need not be kept.
    pub is_last: bool,
    /// How much time the call has left, if it has a deadline.
    pub remaining: Option<Duration>,
}

impl Next {
    /// The attempt after `previous` others.
    #[must_use]
    pub fn new(previous: u32, is_last: bool, remaining: Option<Duration>) -> Self {
        Self { previous, is_last, remaining }
    }
}

/// How requests of type `Req` are sent more than once.
pub trait Replay<Req>: Clone {
    /// What is kept of a call until it has ended.
    type Call;
    /// What an attempt sends: `Req`, or `Req` with a body that can be read again.
    type Request;

    /// The first attempt of a call, and what is kept of it.
    fn begin(&self, request: Req) -> (Self::Call, Self::Request);

    /// Whether the request is still there to be sent again.
    fn may_repeat(&self, call: &Self::Call) -> bool;

    /// Whether the request is there whole, to be sent while another attempt is under way.
    fn may_double(&self, call: &Self::Call) -> bool {
        self.may_repeat(call)
    }

    /// Whether it does no harm if the request is processed more than once.
    fn is_idempotent(&self, call: &Self::Call) -> bool;

    /// The request of the attempt `next`; nothing if it is gone.
    fn again(&self, call: &mut Self::Call, next: Next) -> Option<Self::Request>;

    /// When the caller gives up.
    fn deadline(&self, _: &Self::Call) -> Option<Timestamp> {
        None
    }
}

/// Rules that a layer was given, over a service `S`: each type that implements [`Rules`] implements this, too.
///
/// It tells a layer whose rules were set from one that has none yet, before there is a request.
#[diagnostic::on_unimplemented(
    message = "a layer for retries or hedges does not know what may be sent again",
    label = "no rules",
    note = "over HTTP and gRPC: `.rules(HttpRetry::new())`, of evenkeel-http",
    note = "over anything else whose requests are `Clone`: `.rules(AnyRules::new())`, or `AnyRules::idempotent()` \
            where processing a request twice does no harm",
    note = "rules of your own implement `Ruled<S>`, for every `S`, beside `Rules`"
)]
pub trait Ruled<S> {}

/// What results of type `Res` say about another attempt.
pub trait Rules<Req, Res>: Replay<Req> {
    /// What the caller gets: `Res`, or `Res` that had to be looked into.
    type Response;
    /// Looks into a response as far as must be to judge it.
    type Peek: Future<Output = Result<Self::Response, BoxError>>;

    /// Looks into `response` as far as must be to judge it.
    fn peek(&self, response: Res) -> Self::Peek;

    /// What `result` says about another attempt.
    fn judge(
        &self,
        call: &mut Self::Call,
        result: &mut Result<Self::Response, BoxError>,
    ) -> Verdict;

    /// Waits for whatever else has to be waited for between two attempts, besides the back-off.
    fn poll_wait(&self, _: &mut Self::Call, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

/// Rules for traffic of which nothing is known, but that requests can be cloned.
///
/// Responses are successes. Of errors, only a refused connection is known not to have reached anybody;
/// any other error is repeated only if requests are [`idempotent`](Self::idempotent). What a balancer
/// refuses is final: it has waited already.
///
/// ```
/// use evenkeel_core::{BoxError, retry::{AnyRules, Reach, Replay, Rules, Verdict}};
///
/// let rules = AnyRules::new();
/// let (mut call, _) = rules.begin("request");
/// let refused: BoxError = std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into();
/// let verdict = Rules::<_, ()>::judge(&rules, &mut call, &mut Err(refused));
/// assert_eq!(verdict, Verdict::Again { reach: Reach::Unprocessed, after: None });
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct AnyRules {
    is_idempotent: bool,
}

impl AnyRules {
    /// Repeats what has certainly not been processed.
    #[must_use]
    pub const fn new() -> Self {
        Self { is_idempotent: false }
    }

    /// Repeats whatever failed: processing a request twice does no harm.
    #[must_use]
    pub const fn idempotent() -> Self {
        Self { is_idempotent: true }
    }
}

impl<S> Ruled<S> for AnyRules {}

impl<Req: Clone> Replay<Req> for AnyRules {
    type Call = Option<Req>;
    type Request = Req;

    #[inline]
    fn begin(&self, request: Req) -> (Option<Req>, Req) {
        (Some(request.clone()), request)
    }

    fn may_repeat(&self, call: &Option<Req>) -> bool {
        call.is_some()
    }

    fn is_idempotent(&self, _: &Option<Req>) -> bool {
        self.is_idempotent
    }

    fn again(&self, call: &mut Option<Req>, next: Next) -> Option<Req> {
        if next.is_last { call.take() } else { call.clone() }
    }
}

impl<Req: Clone, Res> Rules<Req, Res> for AnyRules {
    type Response = Res;
    type Peek = Ready<Result<Res, BoxError>>;

    #[inline]
    fn peek(&self, response: Res) -> Self::Peek {
        ready(Ok(response))
    }

    #[inline]
    fn judge(&self, _: &mut Option<Req>, result: &mut Result<Res, BoxError>) -> Verdict {
        match result {
            Ok(_) => Verdict::Success,
            Err(error) => judge_error(error.as_ref()),
        }
    }
}

/// What an error says about another attempt, where nothing is known of the protocol.
///
/// A refusal is final where the one who refused speaks for all endpoints or has waited already. A breaker, a
/// limit or an overload that refused without sending anything may be another endpoint's no more: what it
/// refused is always safe to repeat, for a breaker when it says so.
#[must_use]
pub fn judge_error(error: &(dyn Error + 'static)) -> Verdict {
    let unprocessed = |after| Verdict::Again { reach: Reach::Unprocessed, after };
    if cause::<DeadlineExceeded>(error).is_some() {
        return Verdict::Final;
    }
    if is_refusal(error) {
        if let Some(open) = cause::<CircuitOpen>(error) {
            return unprocessed(open.retry_after);
        }
        if let Some(limited) = cause::<RateLimited>(error) {
            return unprocessed(Some(limited.retry_after));
        }
        let is_elsewhere =
            cause::<LimitReached>(error).is_some() || cause::<Overloaded>(error).is_some();
        return if is_elsewhere { unprocessed(None) } else { Verdict::Final };
    }
    let is_unsent = cause::<std::io::Error>(error)
        .is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused);
    let reach = if is_unsent { Reach::Unprocessed } else { Reach::Processed };
    Verdict::Again { reach, after: None }
}
