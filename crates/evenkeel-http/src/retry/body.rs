//! A request's body that can be read more than once.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use evenkeel_core::BoxError;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::{Buf, Bytes};

/// The body of an attempt: what earlier attempts have read of the caller's body, then the rest of it.
///
/// What is read is kept, up to a bound, for later attempts. If another attempt takes over before this body
/// was read to its end, this body fails with [`Superseded`], since the other reads the rest.
/// By default it is empty.
pub struct ReplayBody<B> {
    /// `None` if the body is empty.
    source: Option<Arc<Source<B>>>,
    generation: u64,
    /// How many of the kept frames have been read.
    position: usize,
    is_trailers_read: bool,
}

/// The body of an attempt that was abandoned: another attempt reads it now.
#[derive(Clone, Copy, Debug, Default, thiserror::Error)]
#[error("the body is read by another attempt")]
#[non_exhaustive]
pub struct Superseded;

/// The caller's body, and the frames read from it.
struct Source<B> {
    state: Mutex<State<B>>,
    max: usize,
}

struct State<B> {
    /// `None` while it is polled, and when it has ended.
    rest: Option<B>,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    trailers: Option<HeaderMap>,
    end: End,
    /// The attempt that reads the part that is not kept yet.
    generation: u64,
    /// The attempt that read the part that is lost: the only one that may read on.
    lost_by: u64,
    /// Attempts that wait while another of them polls the rest.
    waiting: Vec<Waker>,
    /// The attempt that waits for the rest: the caller's body wakes only the task that polled it last.
    reader: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// There is more, and all that was read so far is kept.
    Ahead,
    /// All of it is kept.
    Reached,
    /// It is too long to be kept, or failed: it cannot be read again.
    Lost,
}

impl<B: Body> ReplayBody<B> {
    /// The body of the first attempt, and the source of further ones. At most `max` bytes are kept.
    pub(crate) fn new(body: B, max: usize) -> (Self, Replayed<B>) {
        let source = (!body.is_end_stream()).then(|| {
            let state = State {
                rest: Some(body),
                kept: Vec::new(),
                kept_bytes: 0,
                trailers: None,
                end: End::Ahead,
                generation: 0,
                lost_by: 0,
                waiting: Vec::new(),
                reader: None,
            };
            Arc::new(Source { state: Mutex::new(state), max })
        });
        (Self::of(source.clone(), 0), Replayed(source))
    }
}

impl<B> ReplayBody<B> {
    const fn of(source: Option<Arc<Source<B>>>, generation: u64) -> Self {
        Self { source, generation, position: 0, is_trailers_read: false }
    }
}

/// Makes bodies for further attempts.
pub(crate) struct Replayed<B>(Option<Arc<Source<B>>>);

impl<B> Replayed<B> {
    /// Whether the body can be read from its beginning.
    pub(super) fn may_repeat(&self) -> bool {
        self.0.as_ref().is_none_or(|source| source.state().end != End::Lost)
    }

    /// Whether two attempts can read it at the same time: it is empty or all of it is kept.
    pub(crate) fn may_double(&self) -> bool {
        self.0.as_ref().is_none_or(|source| source.state().end == End::Reached)
    }

    /// The body for another attempt.
    pub(crate) fn again(&self) -> ReplayBody<B> {
        let Some(source) = &self.0 else { return ReplayBody::of(None, 0) };
        let mut state = source.state();
        if state.end != End::Reached {
            state.generation += 1;
        }
        let (generation, waiting) = (state.generation, std::mem::take(&mut state.waiting));
        let reader = state.reader.take();
        drop(state);
        waiting.into_iter().chain(reader).for_each(Waker::wake);
        ReplayBody::of(Some(source.clone()), generation)
    }
}

impl<B> Source<B> {
    fn state(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().expect("no panic under the lock")
    }
}

type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

impl<B> Body for ReplayBody<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let this = self.get_mut();
        let Some(source) = &this.source else { return Poll::Ready(None) };
        let mut state = source.state();
        if let Some(data) = state.kept.get(this.position) {
            this.position += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        match state.end {
            End::Reached => {
                let trailers = state.trailers.clone().filter(|_| !this.is_trailers_read);
                this.is_trailers_read = true;
                return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
            }
            End::Lost if state.lost_by != this.generation => {
                return Poll::Ready(Some(Err(Superseded::default().into())));
            }
            End::Lost if state.rest.is_none() => return Poll::Ready(None),
            End::Ahead | End::Lost => {}
        }
        if state.generation != this.generation {
            return Poll::Ready(Some(Err(Superseded::default().into())));
        }
        // Polled without the lock: it is the caller's code.
        let Some(mut rest) = state.rest.take() else {
            state.waiting.push(cx.waker().clone());
            return Poll::Pending;
        };
        drop(state);
        let polled = Pin::new(&mut rest).poll_frame(cx);

        // There are no further attempts once the call has ended.
        let max = if Arc::strong_count(source) == 1 { 0 } else { source.max };
        let mut state = source.state();
        let polled = state.keep(polled, rest, max);
        if state.end == End::Lost {
            state.lost_by = this.generation;
        }
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            this.position = state.kept.len();
            this.is_trailers_read |= frame.is_trailers();
        }
        state.reader = polled.is_pending().then(|| cx.waker().clone());
        let waiting = std::mem::take(&mut state.waiting);
        let is_superseded = state.generation != this.generation;
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        if polled.is_pending() && is_superseded {
            return Poll::Ready(Some(Err(Superseded::default().into())));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let Some(source) = &self.source else { return true };
        let state = source.state();
        match state.end {
            End::Reached => {
                let is_trailers_read = state.trailers.is_none() || self.is_trailers_read;
                self.position == state.kept.len() && is_trailers_read
            }
            End::Ahead | End::Lost => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let Some(source) = &self.source else { return SizeHint::with_exact(0) };
        let state = source.state();
        let kept = state.kept.iter().skip(self.position).map(|data| data.len() as u64).sum::<u64>();
        let mut hint = match &state.rest {
            Some(rest) => rest.size_hint(),
            None if state.end == End::Reached => SizeHint::with_exact(0),
            None => SizeHint::default(),
        };
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(kept));
        }
        hint.set_lower(hint.lower().saturating_add(kept));
        hint
    }
}

impl<B> State<B> {
    /// Keeps what was read from the rest, and the rest if there is more of it.
    fn keep<D: Buf, E: Into<BoxError>>(
        &mut self,
        polled: Poll<Option<Result<Frame<D>, E>>>,
        rest: B,
        max: usize,
    ) -> Polled
    where
        B: Body,
    {
        let Poll::Ready(frame) = polled else {
            self.rest = Some(rest);
            return Poll::Pending;
        };
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                self.end = End::Lost;
                return Poll::Ready(Some(Err(error.into())));
            }
            None => {
                self.reach_end();
                return Poll::Ready(None);
            }
        };
        let frame = frame.map_data(|mut data| data.copy_to_bytes(data.remaining()));
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = (self.end == End::Ahead).then(|| trailers.clone());
            self.reach_end();
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(data) = frame.data_ref() {
            self.keep_data(data, max);
        }
        if rest.is_end_stream() {
            self.reach_end();
        } else {
            self.rest = Some(rest);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn keep_data(&mut self, data: &Bytes, max: usize) {
        // An empty frame counts too, so that their number is bounded.
        self.kept_bytes = self.kept_bytes.saturating_add(data.len().max(1));
        if max < self.kept_bytes {
            self.end = End::Lost;
            self.kept = Vec::new();
        } else if self.end == End::Ahead {
            self.kept.push(data.clone());
        }
    }

    fn reach_end(&mut self) {
        if self.end == End::Ahead {
            self.end = End::Reached;
        }
    }
}

impl<B> Default for ReplayBody<B> {
    fn default() -> Self {
        Self::of(None, 0)
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody").field("position", &self.position).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use futures_util::FutureExt;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    type Frames = tokio_stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, BoxError>>>;

    fn streamed(texts: &[&'static str]) -> StreamBody<Frames> {
        let data = texts.iter().map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes()))));
        StreamBody::new(tokio_stream::iter(data.collect::<Vec<_>>()))
    }

    async fn frame(body: &mut ReplayBody<StreamBody<Frames>>) -> Option<Result<Bytes, BoxError>> {
        body.frame().await.map(|frame| frame.map(|frame| frame.into_data().unwrap()))
    }

    async fn all(body: ReplayBody<StreamBody<Frames>>) -> Bytes {
        body.collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn another_attempt_begins_at_the_start_and_takes_over_the_rest() {
        let (mut first, replayed) = ReplayBody::new(streamed(&["a", "b", "c"]), 10);
        assert_eq!(frame(&mut first).await.unwrap().unwrap(), "a");
        assert!(replayed.may_repeat());
        assert!(!replayed.may_double());

        let second = replayed.again();
        let error = frame(&mut first).await.unwrap().unwrap_err();
        assert!(error.is::<Superseded>());
        assert_eq!(all(second).await, "abc");

        assert!(replayed.may_double());
        let (third, fourth) = (replayed.again(), replayed.again());
        assert_eq!(third.size_hint().exact(), Some(3));
        assert_eq!((all(third).await, all(fourth).await), ("abc".into(), "abc".into()));
    }

    #[tokio::test]
    async fn a_body_beyond_the_bound_stays_with_the_attempt_that_reads_it() {
        let (mut first, replayed) = ReplayBody::new(streamed(&["a", "b", "c"]), 1);
        frame(&mut first).await.unwrap().unwrap();
        frame(&mut first).await.unwrap().unwrap();
        assert!(!replayed.may_repeat());

        let mut second = replayed.again();
        assert!(
            frame(&mut second).await.unwrap().is_err(),
            "a body that is cut looks like a complete one"
        );
    }

    #[tokio::test]
    async fn a_body_that_fails_is_not_sent_again() {
        let frames = vec![Ok(Frame::data(Bytes::from_static(b"a"))), Err("broken".into())];
        let (mut first, replayed) =
            ReplayBody::new(StreamBody::new(tokio_stream::iter(frames)), 10);
        frame(&mut first).await.unwrap().unwrap();
        assert_eq!(frame(&mut first).await.unwrap().unwrap_err().to_string(), "broken");
        assert!(!replayed.may_repeat());
    }

    #[tokio::test]
    async fn nothing_is_kept_when_the_call_has_ended() {
        let (mut first, replayed) = ReplayBody::new(streamed(&["a", "b", "c"]), 10);
        frame(&mut first).await.unwrap().unwrap();
        drop(replayed);
        frame(&mut first).await.unwrap().unwrap();
        assert!(first.source.as_ref().unwrap().state().kept.is_empty());
        assert_eq!(frame(&mut first).await.unwrap().unwrap(), "c");
        assert!(frame(&mut first).await.is_none());
    }

    #[tokio::test]
    async fn trailers_are_sent_again() {
        let trailers = HeaderMap::from_iter([(http::header::ETAG, "x".parse().unwrap())]);
        let frames = vec![Ok::<_, BoxError>(Frame::<Bytes>::trailers(trailers.clone()))];
        let (first, replayed) = ReplayBody::new(StreamBody::new(tokio_stream::iter(frames)), 10);
        assert_eq!(first.collect().await.unwrap().trailers(), Some(&trailers));
        let again = replayed.again();
        assert!(!again.is_end_stream());
        assert_eq!(again.collect().await.unwrap().trailers(), Some(&trailers));
    }

    /// A body that never has a frame, and does something whenever it is asked for one.
    struct Silent<F>(F);

    impl<F: FnMut() + Unpin> Body for Silent<F> {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Polled {
            (self.0)();
            Poll::Pending
        }
    }

    #[test]
    fn an_attempt_that_waits_for_the_caller_is_woken_when_another_takes_over() {
        struct Woken(AtomicUsize);
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, SeqCst);
            }
        }
        let (mut first, replayed) = ReplayBody::new(Silent(|| {}), 10);
        let woken = Arc::new(Woken(AtomicUsize::new(0)));
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(Pin::new(&mut first).poll_frame(&mut cx).is_pending());
        assert_eq!(woken.0.load(SeqCst), 0, "it does not wake itself");

        let _second = replayed.again();

        assert_eq!(woken.0.load(SeqCst), 1);
        let frame = first.frame().now_or_never().expect("it waits").unwrap();
        assert!(frame.unwrap_err().is::<Superseded>());
    }

    #[test]
    fn an_attempt_that_is_superseded_while_it_asks_the_caller_does_not_wait() {
        let replayed = Arc::new(Mutex::new(None::<Replayed<_>>));
        let taken = replayed.clone();
        let take_over = move || {
            if let Some(replayed) = &*taken.lock().unwrap() {
                drop(Replayed::again(replayed));
            }
        };
        let body: Silent<Box<dyn FnMut() + Send>> = Silent(Box::new(take_over));
        let (mut first, made) = ReplayBody::new(body, 10);
        *replayed.lock().unwrap() = Some(made);

        let frame = first.frame().now_or_never().expect("it waits").unwrap();

        assert!(frame.unwrap_err().is::<Superseded>());
    }

    #[test]
    fn an_empty_body_needs_no_sharing() {
        let (first, replayed) = ReplayBody::new(http_body_util::Empty::<Bytes>::new(), 10);
        assert!(first.is_end_stream());
        assert!(first.source.is_none());
        assert!(replayed.may_double());
        assert!(replayed.again().frame().now_or_never().unwrap().is_none());
    }
}
