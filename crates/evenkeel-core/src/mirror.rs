//! How a protocol copies requests.

/// How requests of type `Req` are copied, for a mirror.
pub trait Copies<Req>: Clone {
    /// What the service is called with: `Req`, or `Req` with a body that can be read again.
    type Request;
    /// What is kept of a request until it is answered.
    type Kept;

    /// The request as it is sent if it is not copied.
    fn pass(&self, request: Req) -> Self::Request;

    /// The request as it is sent, and what is kept to copy it.
    fn keep(&self, request: Req) -> (Self::Kept, Self::Request);

    /// The copy, once the request is answered; `None` if it is incomplete.
    fn copy(&self, kept: Self::Kept) -> Option<Self::Request>;
}

/// Clones requests.
///
/// ```
/// use evenkeel::core::mirror::{CloneRequest, Copies};
///
/// let (kept, request) = CloneRequest.keep("hello");
/// assert_eq!((request, CloneRequest.copy(kept)), ("hello", Some("hello")));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneRequest;

impl<Req: Clone> Copies<Req> for CloneRequest {
    type Request = Req;
    type Kept = Req;

    fn pass(&self, request: Req) -> Req {
        request
    }

    fn keep(&self, request: Req) -> (Req, Req) {
        (request.clone(), request)
    }

    fn copy(&self, kept: Req) -> Option<Req> {
        Some(kept)
    }
}
