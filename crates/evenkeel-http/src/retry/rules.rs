//! The rules of HTTP and gRPC for another attempt.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use evenkeel_core::retry::{Ruled, Verdict};
use http::{HeaderMap, StatusCode};

use crate::grpc_status::UNAVAILABLE;

/// The rules of HTTP and gRPC for retries and hedges.
///
/// | what happened | another attempt |
/// |---|---|
/// | no connection; a stream refused, or above the last one of a `GOAWAY` | always safe |
/// | 429 with `Retry-After`, `RateLimit` or `RateLimit-Reset` | always safe, after the delay that it names |
/// | `UNAVAILABLE` or `RESOURCE_EXHAUSTED` with `grpc-retry-pushback-ms` | always safe, after that delay: the server asks for it |
/// | reset, or closed, or timed out before a response | if idempotent |
/// | 502, 503, 504 | if idempotent, after `Retry-After` or `RateLimit-Reset` if there is one |
/// | `UNAVAILABLE` with no message before it | if idempotent, or by the rules of [`grpc`](Self::grpc) |
/// | a breaker, a limit or load shedding of this process that stands below the retries, tower's too | always safe |
/// | a pushback that is negative | never |
/// | the request itself is at fault; there is no endpoint; anything else | never |
///
/// A 429 without a delay is not retried, since the server already has too much to do. A 500 is not retried,
/// since it usually happens again. The [method](super::Idempotent) decides whether a request is idempotent,
/// or its extension [`Idempotent`](super::Idempotent), or [`all_idempotent`](Self::all_idempotent). A response that
/// a layer of this process made from an error, such as [`GrpcStatusLayer`](crate::GrpcStatusLayer), is judged
/// by that error.
///
/// A gRPC call is a `POST`, so these rules repeat it only if a row says that this is always safe: a handler may
/// answer `UNAVAILABLE` after it has done its work. If that is the only reason not to repeat a call, the retry
/// layer says `not_repeatable` in its event and its metric. [`grpc`](Self::grpc) has the rules of gRPC's own retries.
///
/// The body of a request is kept while it is sent, up to [`max_body`](Self::max_body). Once more than that was
/// sent, the request is not sent again. So the service below gets requests with a
/// [`ReplayBody`](super::ReplayBody). A call without [`Tried`](evenkeel_core::traffic::Tried) in its extensions
/// gets one, so that its attempts avoid each other's endpoints. The second and later attempts carry
/// [`PreviousAttempts`](super::PreviousAttempts), and `grpc-previous-rpc-attempts` if it is a gRPC call.
///
/// A call costs clones of its headers and extensions. If it has a body, it also costs one allocation to
/// share it, and the list of what was sent.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::http::{HttpRetry, Idempotent};
///
/// let rules = HttpRetry::new()
///     .statuses([500, 502, 503, 504])
///     .grpc_codes([10, 14]) // ABORTED, UNAVAILABLE
///     .max_body(1 << 20);
/// # drop(rules);
///
/// // A POST that the server knows by its key.
/// let mut request = http::Request::post("/orders").header("idempotency-key", "7").body(()).unwrap();
/// request.extensions_mut().insert(Idempotent(true));
/// ```
#[derive(Clone)]
pub struct HttpRetry {
    pub(super) statuses: Vec<StatusCode>,
    /// One bit for each code.
    pub(super) grpc_codes: u32,
    /// Whether gRPC calls are repeated if the service was unavailable, idempotent or not.
    pub(super) repeats_unavailable: bool,
    pub(super) is_all_idempotent: bool,
    pub(super) max_body: usize,
    pub(super) max_peek: Duration,
    pub(super) predicate: Option<Arc<Predicate>>,
}

type Predicate = dyn Fn(Seen<'_>) -> Option<Verdict> + Send + Sync;

/// What is known of an attempt: the head of a response, or an error.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Seen<'a> {
    /// There is a response.
    #[non_exhaustive]
    Response {
        /// Its status.
        status: StatusCode,
        /// Its headers.
        headers: &'a HeaderMap,
        /// Its trailers, if it is a gRPC response and no message came before them.
        trailers: Option<&'a HeaderMap>,
    },
    /// There is an error.
    Error(&'a (dyn Error + 'static)),
}

impl HttpRetry {
    /// The rules above.
    #[must_use]
    pub fn new() -> Self {
        Self {
            statuses: vec![
                StatusCode::BAD_GATEWAY,
                StatusCode::SERVICE_UNAVAILABLE,
                StatusCode::GATEWAY_TIMEOUT,
            ],
            grpc_codes: 1 << UNAVAILABLE,
            repeats_unavailable: false,
            is_all_idempotent: false,
            max_body: 64 * 1024,
            max_peek: Duration::from_millis(10),
            predicate: None,
        }
    }

    /// The rules of gRPC's own retries, for a stack over [`HttpConnector::grpc`](crate::HttpConnector::grpc).
    ///
    /// These are the rules of [`new`](Self::new) and more. A gRPC call is also repeated if it ended with one of
    /// [`grpc_codes`](Self::grpc_codes) before any message, by default `UNAVAILABLE`; if its connection broke
    /// before the response; or if a proxy answered with 502, 503 or 504, which gRPC treats as `UNAVAILABLE`. A
    /// `retryPolicy` with `retryableStatusCodes` (gRFC A6) does the same, and so does linkerd with
    /// `retry.linkerd.io/grpc`: turning retries on says that all methods may be repeated. For a call that may
    /// not, set the extension [`Idempotent(false)`](super::Idempotent). After a timeout of an attempt, which may
    /// still be running elsewhere, a call is repeated only if it is idempotent, as with `new`.
    ///
    /// ```
    /// use evenkeel::http::{HttpRetry, Idempotent};
    ///
    /// let rules = HttpRetry::grpc();
    /// # drop(rules);
    ///
    /// // With tonic: `tonic::Request::extensions_mut` does the same.
    /// let mut call = http::Request::post("/bank.v1.Bank/Pay").body(()).unwrap();
    /// call.extensions_mut().insert(Idempotent(false));
    /// ```
    #[must_use]
    pub fn grpc() -> Self {
        Self { repeats_unavailable: true, ..Self::new() }
    }

    /// Sets which statuses are worth another attempt. Default: 502, 503, 504.
    ///
    /// # Panics
    /// If one is not a status.
    #[must_use]
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
        let status = |status| StatusCode::from_u16(status).expect("a status from 100 to 999");
        self.statuses = statuses.into_iter().map(status).collect();
        self
    }

    /// Sets which gRPC codes are worth another attempt. Default: 14, `UNAVAILABLE`.
    ///
    /// # Panics
    /// If one is not a code from 1 to 16.
    #[must_use]
    pub fn grpc_codes(mut self, codes: impl IntoIterator<Item = u32>) -> Self {
        self.grpc_codes = codes.into_iter().fold(0, |bits, code| {
            assert!((1..=16).contains(&code), "gRPC code {code}");
            bits | 1 << code
        });
        self
    }

    /// Treats every request as idempotent, unless its extension [`Idempotent`](super::Idempotent) says
    /// otherwise.
    #[must_use]
    pub fn all_idempotent(mut self) -> Self {
        self.is_all_idempotent = true;
        self
    }

    /// Sets how many bytes of a request's body are kept to be sent again. Default: 64 KiB.
    ///
    /// Each call in flight takes this memory. With zero, a request is sent again only if it has no body or
    /// nothing of the body was read.
    #[must_use]
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// Sets how long the head of a gRPC response is held back to see a status that follows without a
    /// message. Default: 10 milliseconds.
    ///
    /// With zero it is not held back. Much more delays streams if the server sends the head long before the
    /// first message.
    #[must_use]
    pub fn max_peek(mut self, wait: Duration) -> Self {
        self.max_peek = wait;
        self
    }

    /// Sets a function that is asked before these rules. If it returns `None`, the rules decide.
    ///
    /// ```
    /// use evenkeel::core::retry::{Reach, Verdict};
    /// use evenkeel::http::{HttpRetry, Seen};
    ///
    /// let rules = HttpRetry::new().predicate(|seen| match seen {
    ///     Seen::Response { status, .. } if status == 409 => {
    ///         Some(Verdict::Again { reach: Reach::Processed, after: None })
    ///     }
    ///     _ => None,
    /// });
    /// # drop(rules);
    /// ```
    #[must_use]
    pub fn predicate<F>(mut self, predicate: F) -> Self
    where
        F: Fn(Seen<'_>) -> Option<Verdict> + Send + Sync + 'static,
    {
        self.predicate = Some(Arc::new(predicate));
        self
    }
}

impl<S> Ruled<S> for HttpRetry {}

impl Default for HttpRetry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for HttpRetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRetry")
            .field("statuses", &self.statuses)
            .field("is_all_idempotent", &self.is_all_idempotent)
            .field("max_body", &self.max_body)
            .finish_non_exhaustive()
    }
}
