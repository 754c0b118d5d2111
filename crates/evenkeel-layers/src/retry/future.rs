//! The way of one call: an attempt, its judgement, possibly a wait, another attempt.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use evenkeel_core::{
    BoxError, cut,
    error::{AttemptTimeout, cause, is_refusal},
    retry::{Next, Progress, Reach, Replay, Rules, Stop, Verdict},
    time::Timestamp,
};
use evenkeel_metrics::Client;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower_service::Service;

use super::settings::{Settings, Shared};
use crate::clock;

pin_project! {
    /// The response of the last attempt. See the [module docs](super).
    pub struct RetryFuture<S, P, Req, Res>
    where
        S: Service<<P as Replay<Req>>::Request>,
        P: Replay<Req>,
        P: Rules<Req, Res>,
    {
        // Ready for the first attempt when the call begins. For later attempts it is driven to
        // ready here.
        service: S,
        shared: Arc<Shared<P>>,
        call: P::Call,
        request: Option<P::Request>,
        progress: Progress,
        // Whether the budget has counted this call.
        is_counted: bool,
        // What an attempt failed with, until another has failed and was not merely refused.
        error: Option<BoxError>,
        // The end of a back-off, or of an attempt's time. A field, so that it needs no box.
        #[pin]
        timer: Option<Sleep>,
        #[pin]
        state: State<S::Future, P::Peek>,
    }
}

pin_project! {
    #[project = StateProject]
    enum State<F, K> {
        // The attempt is under way.
        Called { #[pin] future: F },
        // Its response is inspected.
        Peeking { #[pin] peek: K },
        // Waits for the back-off, then for whatever else the rules wait for.
        Waiting,
        // The service is driven to ready for the next attempt.
        Readying,
    }
}

impl<S, P, Req, Res> RetryFuture<S, P, Req, Res>
where
    S: Service<<P as Replay<Req>>::Request>,
    P: Rules<Req, Res>,
{
    pub(super) fn new(
        service: S,
        shared: Arc<Shared<P>>,
        call: P::Call,
        future: S::Future,
    ) -> Self {
        Self {
            service,
            shared,
            call,
            request: None,
            progress: Progress::default(),
            is_counted: false,
            error: None,
            timer: None,
            state: State::Called { future },
        }
    }
}

impl<S, P, Req, Res> Future for RetryFuture<S, P, Req, Res>
where
    S: Service<<P as Replay<Req>>::Request, Response = Res>,
    S::Error: Into<BoxError>,
    P: Rules<Req, Res>,
{
    type Output = Result<P::Response, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let mut this = self.as_mut().project();
            let polled = match this.state.as_mut().project() {
                StateProject::Called { future } => match future.poll(cx) {
                    Poll::Ready(Ok(response)) => {
                        let peek = this.shared.settings.rules.peek(response);
                        this.state.set(State::Peeking { peek });
                        continue;
                    }
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
                    Poll::Pending => Poll::Pending,
                },
                StateProject::Peeking { peek } => peek.poll(cx),
                StateProject::Waiting => {
                    if let Some(timer) = this.timer.as_mut().as_pin_mut() {
                        ready!(timer.poll(cx));
                        this.timer.set(None);
                    }
                    ready!(this.shared.settings.rules.poll_wait(this.call, cx));
                    this.state.set(State::Readying);
                    continue;
                }
                StateProject::Readying => match this.service.poll_ready(cx) {
                    Poll::Ready(Ok(())) => {
                        let request = this.request.take().expect("made before the wait");
                        let future = this.service.call(request);
                        this.state.set(State::Called { future });
                        continue;
                    }
                    Poll::Ready(Err(error)) => {
                        // What became of the attempt tells more than that another is impossible.
                        let error = this.error.take().unwrap_or_else(|| error.into());
                        return Poll::Ready(Err(error));
                    }
                    Poll::Pending => Poll::Pending,
                },
            };
            let result = match polled {
                Poll::Ready(result) => result,
                Poll::Pending => {
                    let timeout = ready!(self.as_mut().poll_timeout(cx));
                    if let Some(error) = self.as_mut().unsent() {
                        return Poll::Ready(Err(error));
                    }
                    // Dropped here, so that the failure counts against the endpoint.
                    let mut state = self.as_mut().project().state;
                    cut::by_deadline(timeout.after, || state.set(State::Waiting));
                    Err(timeout.into())
                }
            };
            if let Some(result) = self.as_mut().end_or_retry(result) {
                return Poll::Ready(result);
            }
        }
    }
}

impl<S, P, Req, Res> RetryFuture<S, P, Req, Res>
where
    S: Service<<P as Replay<Req>>::Request>,
    P: Rules<Req, Res>,
{
    /// Waits for the end of an attempt's time, which begins when the attempt first has to wait.
    fn poll_timeout(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<AttemptTimeout> {
        let mut this = self.project();
        let settings = &this.shared.settings;
        if !mem::replace(this.is_counted, true)
            && let Some(budget) = &settings.budget
        {
            budget.deposit(clock::now());
        }
        let Some(timeout) = settings.attempt_timeout else { return Poll::Pending };
        if this.timer.is_none() {
            this.timer.set(Some(sleep(timeout)));
        }
        let timer = this.timer.as_mut().as_pin_mut().expect("set above");
        timer.poll(cx).map(|()| AttemptTimeout::new(timeout))
    }

    /// The error of the attempt before, if the attempt whose time is over was never sent.
    fn unsent(self: Pin<&mut Self>) -> Option<BoxError> {
        let mut this = self.project();
        let is_unsent = matches!(this.state.as_mut().project(), StateProject::Readying);
        this.error.take().filter(|_| is_unsent)
    }

    /// The result of the call, or `None` if another attempt is to be made.
    #[inline]
    fn end_or_retry(
        mut self: Pin<&mut Self>,
        mut result: Result<P::Response, BoxError>,
    ) -> Option<Result<P::Response, BoxError>> {
        let this = self.as_mut().project();
        let settings = &this.shared.settings;
        let verdict = settings.rules.judge(this.call, &mut result);
        if verdict != Verdict::Success {
            return self.retry(result, verdict);
        }
        if let Some(budget) = &settings.budget {
            if !*this.is_counted {
                budget.deposit_lazily(clock::now);
            }
            budget.record_success();
        }
        Some(result)
    }

    #[cold]
    fn retry(
        self: Pin<&mut Self>,
        result: Result<P::Response, BoxError>,
        verdict: Verdict,
    ) -> Option<Result<P::Response, BoxError>> {
        let mut this = self.project();
        let now = clock::now();
        if let Some(budget) = &this.shared.settings.budget {
            if !mem::replace(this.is_counted, true) {
                budget.deposit(now);
            }
            if matches!(verdict, Verdict::Again { .. } | Verdict::Forbidden) {
                budget.record_failure();
            }
        }
        let next = next(this.shared, this.call, this.progress, verdict, now).and_then(|next| {
            *this.request = this.shared.settings.rules.again(this.call, next.0);
            if this.request.is_some() { Ok(next) } else { Err(Stop::NotRepeatable) }
        });
        let (next, delay) = match next {
            Ok(next) => next,
            Err(stop) => {
                let result = real(result, this.error);
                return Some(log_stop(&this.shared.client, result, verdict, stop));
            }
        };
        let error_type = error_type(verdict, &result);
        let client = &this.shared.client;
        evenkeel_metrics::count_retry(client, error_type);
        tracing::debug!(
            target: "evenkeel::retry",
            client = client.name(),
            attempt = next.previous + 1,
            "error.type" = error_type,
            error = result.as_ref().err().map(tracing::field::display),
            ?delay,
            "another attempt"
        );
        // The attempt and its response are dropped before the wait, so that they hold no connection
        // meanwhile.
        this.state.set(State::Waiting);
        this.timer.set((Duration::ZERO < delay).then(|| sleep(delay)));
        *this.error = real(result, this.error).err();
        None
    }
}

/// The failure of an earlier attempt, if this one was refused before it was sent.
fn real<R>(result: Result<R, BoxError>, before: &mut Option<BoxError>) -> Result<R, BoxError> {
    match result {
        Err(error) if is_refusal(error.as_ref()) => Err(before.take().unwrap_or(error)),
        result => result,
    }
}

/// The error type of an attempt.
fn error_type<R>(verdict: Verdict, result: &Result<R, BoxError>) -> &'static str {
    match (verdict, result) {
        (Verdict::Again { after: Some(_), .. }, _) => "throttled",
        (_, Err(error)) if cause::<AttemptTimeout>(error.as_ref()).is_some() => "timeout",
        (Verdict::Again { reach: Reach::Unprocessed, .. }, _) => "unsent",
        _ => "failed",
    }
}

/// Logs why the call ends with this result and not with another attempt.
fn log_stop<R>(
    client: &Client,
    result: Result<R, BoxError>,
    verdict: Verdict,
    stop: Stop,
) -> Result<R, BoxError> {
    if stop != Stop::Final {
        evenkeel_metrics::count_retry_refusal(client, stop.name());
        tracing::debug!(
            target: "evenkeel::retry",
            client = client.name(),
            reason = stop.name(),
            "error.type" = error_type(verdict, &result),
            error = result.as_ref().err().map(tracing::field::display),
            "no other attempt"
        );
    }
    result
}

/// The next attempt and the delay before it, or why none is made.
fn next<P, Req>(
    shared: &Shared<P>,
    call: &P::Call,
    progress: &mut Progress,
    verdict: Verdict,
    now: Timestamp,
) -> Result<(Next, Duration), Stop>
where
    P: Replay<Req>,
{
    let Settings { rules, schedule, budget, .. } = &shared.settings;
    if let Verdict::Again { reach, .. } = verdict {
        let is_safe = reach == Reach::Unprocessed || rules.is_idempotent(call);
        if !is_safe || !rules.may_repeat(call) {
            return Err(Stop::NotRepeatable);
        }
    }
    let deadline = rules.deadline(call);
    let mut rng = shared.seeds.rng();
    let delay = schedule.next(progress, verdict, budget.as_ref(), now, deadline, &mut rng)?;
    let remaining = deadline.map(|deadline| deadline.since(now + delay));
    Ok((Next::new(progress.previous(), progress.is_last(schedule), remaining), delay))
}

impl<S, P, Req, Res> fmt::Debug for RetryFuture<S, P, Req, Res>
where
    S: Service<<P as Replay<Req>>::Request>,
    P: Rules<Req, Res>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryFuture").field("progress", &self.progress).finish_non_exhaustive()
    }
}
