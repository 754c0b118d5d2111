//! The way of one call: an attempt, possibly a second one in parallel.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use evenkeel_core::{
    BoxError,
    error::is_refusal,
    retry::{Next, Replay, Rules, Verdict},
    time::Timestamp,
};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower_service::Service;

use super::Shared;
use crate::clock;

pin_project! {
    /// The first good answer of two attempts. See the [module docs](super).
    pub struct HedgeFuture<S, P, Req, Res>
    where
        S: Service<<P as Replay<Req>>::Request>,
        P: Replay<Req>,
        P: Rules<Req, Res>,
    {
        service: S,
        clocks: Clocks<P>,
        call: P::Call,
        // The request of the second attempt, until the service is ready for it.
        request: Option<P::Request>,
        stage: Stage,
        #[pin]
        timer: Option<Sleep>,
        #[pin]
        first: Attempt<S::Future, P::Peek>,
        #[pin]
        second: Attempt<S::Future, P::Peek>,
        // What the caller gets if no attempt does better.
        failure: Option<Result<P::Response, BoxError>>,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The first attempt has not had to wait.
    Fresh,
    /// The first attempt waits, and the time of the second has not come.
    Alone,
    /// The second attempt waits for the service to be ready.
    Readying,
    /// Both were sent, or no second one will be.
    Settled,
}

pin_project! {
    #[project = AttemptProject]
    enum Attempt<F, K> {
        Called { #[pin] future: F },
        Peeking { #[pin] peek: K },
        // Not sent, or over.
        Idle,
    }
}

impl<F, K> Attempt<F, K> {
    fn poll_with<P, Req, Res, E>(
        mut self: Pin<&mut Self>,
        rules: &P,
        cx: &mut Context<'_>,
    ) -> Poll<Result<P::Response, BoxError>>
    where
        F: Future<Output = Result<Res, E>>,
        E: Into<BoxError>,
        P: Rules<Req, Res, Peek = K>,
        K: Future<Output = Result<P::Response, BoxError>>,
    {
        loop {
            let response = match self.as_mut().project() {
                AttemptProject::Called { future } => match future.poll(cx) {
                    Poll::Ready(Ok(response)) => response,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    Poll::Pending => return Poll::Pending,
                },
                AttemptProject::Peeking { peek } => return peek.poll(cx),
                AttemptProject::Idle => return Poll::Pending,
            };
            let peek = rules.peek(response);
            self.set(Attempt::Peeking { peek });
        }
    }
}

/// How long both attempts take. The percentile is told, however they end.
struct Clocks<P> {
    shared: Arc<Shared<P>>,
    started: [Option<Timestamp>; 2],
}

const FIRST: usize = 0;
const SECOND: usize = 1;

impl<P> Clocks<P> {
    fn start(&mut self, attempt: usize, now: Timestamp) {
        self.started[attempt] = Some(now);
    }

    /// Records that the attempt was answered well.
    fn record_answer(&mut self, attempt: usize) {
        if let (Some(latency), Some(started)) = (&self.shared.latency, self.started[attempt].take())
        {
            let now = clock::now();
            latency.record_success(now.since(started), now);
        }
    }

    /// Records that the attempt failed or was cut off: it would have taken at least as long as it
    /// did.
    fn cut(&mut self, attempt: usize) {
        if let (Some(latency), Some(started)) = (&self.shared.latency, self.started[attempt].take())
        {
            let now = clock::now();
            latency.record_at_least(now.since(started), now);
        }
    }
}

impl<P> Drop for Clocks<P> {
    fn drop(&mut self) {
        self.cut(FIRST);
        self.cut(SECOND);
    }
}

impl<S, P, Req, Res> HedgeFuture<S, P, Req, Res>
where
    S: Service<<P as Replay<Req>>::Request>,
    P: Rules<Req, Res>,
{
    pub(super) fn new(service: S, shared: Arc<Shared<P>>, call: P::Call, first: S::Future) -> Self {
        Self {
            service,
            clocks: Clocks { shared, started: [None; 2] },
            call,
            request: None,
            stage: Stage::Fresh,
            timer: None,
            first: Attempt::Called { future: first },
            second: Attempt::Idle,
            failure: None,
        }
    }
}

impl<S, P, Req, Res> Future for HedgeFuture<S, P, Req, Res>
where
    S: Service<<P as Replay<Req>>::Request, Response = Res>,
    S::Error: Into<BoxError>,
    P: Rules<Req, Res>,
{
    type Output = Result<P::Response, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(result) = self.as_mut().poll_attempts(cx) {
            return Poll::Ready(result);
        }
        if self.as_mut().poll_second(cx).is_ready() {
            return self.poll_attempts(cx);
        }
        Poll::Pending
    }
}

impl<S, P, Req, Res> HedgeFuture<S, P, Req, Res>
where
    S: Service<<P as Replay<Req>>::Request, Response = Res>,
    S::Error: Into<BoxError>,
    P: Rules<Req, Res>,
{
    /// Polls the attempts under way, until one is answered well or nothing is left to wait for.
    fn poll_attempts(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<P::Response, BoxError>> {
        let mut this = self.project();
        for index in [FIRST, SECOND] {
            let shared = &*this.clocks.shared;
            let (mut attempt, other) = if index == SECOND {
                (this.second.as_mut(), this.first.as_mut())
            } else {
                (this.first.as_mut(), this.second.as_mut())
            };
            let polled =
                attempt.as_mut().poll_with::<P, Req, Res, S::Error>(&shared.layer.rules, cx);
            let Poll::Ready(mut result) = polled else { continue };
            let is_other_under_way = !matches!(other.project(), AttemptProject::Idle);
            attempt.set(Attempt::Idle);
            if *this.stage == Stage::Fresh && !shared.layer.is_below_retry {
                shared.layer.budget.deposit_lazily(clock::now);
            }
            let verdict = shared.layer.rules.judge(this.call, &mut result);
            let is_final = !is_other_under_way && *this.stage != Stage::Readying;
            shared.tell_budget(verdict, is_final);
            if verdict == Verdict::Success {
                if index == SECOND || is_other_under_way {
                    shared.counters.record_end(index == SECOND, is_other_under_way);
                }
                this.clocks.record_answer(index);
                return Poll::Ready(result);
            }
            this.clocks.cut(index);
            // A refusal before the request was sent says less than a real failure.
            if this.failure.is_none() || !is_refused(&result) {
                *this.failure = Some(result);
            }
        }
        let is_idle =
            |attempt: Pin<&mut Attempt<_, _>>| matches!(attempt.project(), AttemptProject::Idle);
        let is_over = is_idle(this.first.as_mut()) && is_idle(this.second.as_mut());
        if is_over && *this.stage != Stage::Readying {
            return Poll::Ready(this.failure.take().expect("both attempts have failed"));
        }
        Poll::Pending
    }

    /// Sends the second attempt when it is time. Ready once it was sent.
    fn poll_second(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let began = (*this.stage == Stage::Fresh).then(clock::now);
        if let Some(now) = began {
            this.clocks.start(FIRST, now);
        }
        let shared = &*this.clocks.shared;
        let rules = &shared.layer.rules;
        if let Some(now) = began {
            if !shared.layer.is_below_retry {
                shared.layer.budget.deposit(now);
            }
            let may_double = rules.is_idempotent(this.call) && rules.may_repeat(this.call);
            let delay = shared.delay().filter(|_| may_double);
            *this.stage = if delay.is_some() { Stage::Alone } else { Stage::Settled };
            this.timer.set(delay.map(sleep));
        }
        if *this.stage == Stage::Alone {
            let timer = this.timer.as_mut().as_pin_mut().expect("set with the stage");
            if timer.poll(cx).is_pending() {
                return Poll::Pending;
            }
            *this.stage = Stage::Settled;
            let now = clock::now();
            let deadline = rules.deadline(this.call);
            if deadline.is_some_and(|deadline| deadline <= now) {
                shared.counters.record_not_sent("too_late");
            } else if !rules.may_double(this.call) {
                shared.counters.record_not_sent("not_repeatable");
            } else if !shared.layer.budget.withdraw(now) {
                shared.counters.record_not_sent("no_budget");
            } else {
                let remaining = deadline.map(|deadline| deadline.since(now));
                *this.request = rules.again(this.call, Next::new(1, true, remaining));
                *this.stage = Stage::Readying;
            }
        }
        if *this.stage != Stage::Readying {
            return Poll::Pending;
        }
        // If the service fails to become ready, the first attempt stays the only one.
        let is_ready = match this.service.poll_ready(cx) {
            Poll::Ready(result) => result.is_ok(),
            Poll::Pending => return Poll::Pending,
        };
        *this.stage = Stage::Settled;
        if let Some(request) = this.request.take().filter(|_| is_ready) {
            this.second.set(Attempt::Called { future: this.service.call(request) });
            shared.counters.record_sent();
            this.clocks.start(SECOND, clock::now());
        } else {
            shared.counters.record_not_sent(if is_ready { "not_repeatable" } else { "not_ready" });
        }
        Poll::Ready(())
    }
}

fn is_refused<R>(result: &Result<R, BoxError>) -> bool {
    matches!(result, Err(error) if is_refusal(error.as_ref()))
}

impl<S, P, Req, Res> fmt::Debug for HedgeFuture<S, P, Req, Res>
where
    S: Service<<P as Replay<Req>>::Request>,
    P: Rules<Req, Res>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgeFuture").field("stage", &self.stage).finish_non_exhaustive()
    }
}
