//! How a protocol describes what may be tried again.

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

/// How far a failed attempt came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nothing was sent, or the endpoint says that it did not process it: always safe to repeat.
    Unprocessed,
    /// It may have been processed: safe to repeat only if processing it twice does no harm.
    Processed,
}

/// What the result of an attempt says about another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It succeeded.
    Success,
    /// It failed, and another attempt would fail in the same way.
    Final,
    /// It failed, and the endpoint forbids another attempt.
    Forbidden,
    /// It failed, and another attempt may succeed, after the delay that the endpoint asks for.
    Again {
        /// Whether it may have been processed.
        reach: Reach,
        /// The delay that the endpoint asks for; `None` if it asks for none.
        after: Option<Duration>,
    },
}

/// An attempt that follows others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Next {
    /// How many attempts of the call were made before it.
    pub previous: u32,
    /// Whether no other attempt can follow, so that the request need not be kept any longer.
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

    /// Whether the request can still be sent again.
    fn may_repeat(&self, call: &Self::Call) -> bool;

    /// Whether the whole request is there, so that it can be sent while another attempt is under
    /// way.
    fn may_double(&self, call: &Self::Call) -> bool {
        self.may_repeat(call)
    }

    /// Whether processing the request more than once does no harm.
    fn is_idempotent(&self, call: &Self::Call) -> bool;

    /// The request of the attempt `next`; `None` if it is gone.
    fn again(&self, call: &mut Self::Call, next: Next) -> Option<Self::Request>;

    /// When the caller gives up.
    fn deadline(&self, _: &Self::Call) -> Option<Timestamp> {
        None
    }
}

/// The rules of a layer over a service `S`. Each type that implements [`Rules`] also implements
/// this.
///
/// It tells layers that have rules from layers that have none yet, before there is a request.
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
    /// What the caller gets: `Res`, or `Res` in a form that could be looked into.
    type Response;
    /// Looks into a response as far as is needed to judge it.
    type Peek: Future<Output = Result<Self::Response, BoxError>>;

    /// Looks into `response` as far as is needed to judge it.
    fn peek(&self, response: Res) -> Self::Peek;

    /// What `result` says about another attempt.
    fn judge(
        &self,
        call: &mut Self::Call,
        result: &mut Result<Self::Response, BoxError>,
    ) -> Verdict;

    /// Waits for anything else that has to happen between two attempts, besides the back-off.
    fn poll_wait(&self, _: &mut Self::Call, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

/// Rules for traffic of an unknown protocol with requests that can be cloned.
///
/// Responses are successes. Among errors, only a refused connection is known not to have reached a
/// server. Any other error is repeated only if requests are [`idempotent`](Self::idempotent). A
/// refusal by a balancer is final: it has waited already.
///
/// ```
/// use evenkeel::core::{BoxError, retry::{AnyRules, Reach, Replay, Rules, Verdict}};
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
    /// Repeats only what was certainly not processed.
    #[must_use]
    pub const fn new() -> Self {
        Self { is_idempotent: false }
    }

    /// Repeats everything that failed: processing a request twice does no harm.
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

/// What an error says about another attempt if the protocol is unknown.
///
/// A refusal is final if it holds for all endpoints, or if the layer that refused has waited
/// already. A breaker, a limit or an overload that refused without sending anything may concern one
/// endpoint only. Repeating such a request is always safe; after a breaker's refusal, at the time
/// that it gives.
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
