//! The end of an attempt, the same in every service that makes one.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use evenkeel_core::attempt::{Attempt, Holder};

/// Waits for the response to `attempt`, and hands both to `finish`. If this is not polled to its
/// end, the attempt was cut off, which it reports when it is dropped.
// Always inline, like the rest of an attempt. The result is not returned but handed on, so that it
// is not moved once more.
#[inline(always)]
pub(crate) fn poll_end<H, F, T>(
    future: Pin<&mut F>,
    attempt: &mut Option<Attempt<H>>,
    cx: &mut Context<'_>,
    finish: impl FnOnce(Attempt, F::Output) -> T,
) -> Poll<T>
where
    H: Holder + Send + Sync + 'static,
    F: Future,
{
    let Poll::Ready(result) = future.poll(cx) else {
        // Only an attempt that waits can be cut off by a deadline.
        attempt.as_mut().expect("under way").start_clock();
        return Poll::Pending;
    };
    let attempt = attempt.take().expect("a future is not polled after its end");
    Poll::Ready(finish(attempt.erase(), result))
}
