//! Copies HTTP requests for a mirror.

use evenkeel_core::mirror::Copies;
use http::{HeaderMap, Method, Request, Uri, Version};
use http_body::Body;

use crate::retry::{ReplayBody, Replayed};

/// Copies requests over HTTP and gRPC for `MirrorLayer`, with bodies up to a bound.
///
/// A body is kept while it is sent, so it is neither delayed nor read in advance. A body that is longer than
/// [`max_body`](Self::max_body) is not copied. The service below gets requests with a
/// [`ReplayBody`](crate::ReplayBody), whether they are copied or not.
///
/// A copy has the method, URI, version and headers of the request. Its only extension is [`Mirrored`]. To mark
/// copies on the wire, put a layer around the mirror that adds a header.
///
/// ```
/// use evenkeel::core::mirror::Copies;
/// use evenkeel::http::{HttpMirror, Mirrored};
/// use http_body_util::Empty;
/// use hyper::body::Bytes;
///
/// let request = http::Request::get("/users").body(Empty::<Bytes>::new()).unwrap();
/// let (kept, request) = HttpMirror::new().keep(request);
/// let copy = HttpMirror::new().copy(kept).expect("there is no body to wait for");
/// assert_eq!(copy.uri(), request.uri());
/// assert!(copy.extensions().get::<Mirrored>().is_some());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HttpMirror {
    max_body: usize,
}

/// Request extension: this is a copy, and its answer is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mirrored;

impl HttpMirror {
    /// Copies requests with bodies of at most 64 KiB.
    #[must_use]
    pub const fn new() -> Self {
        Self { max_body: 64 << 10 }
    }

    /// Sets how many bytes of a body are kept. Default: 64 KiB.
    ///
    /// All copies in flight together keep at most this times the layer's `max_in_flight`.
    #[must_use]
    pub const fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }
}

impl Default for HttpMirror {
    fn default() -> Self {
        Self::new()
    }
}

/// What is kept of a request to copy it.
pub struct KeptRequest<B> {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    body: Replayed<B>,
}

impl<B: Body> Copies<Request<B>> for HttpMirror {
    type Request = Request<ReplayBody<B>>;
    type Kept = KeptRequest<B>;

    fn pass(&self, request: Request<B>) -> Self::Request {
        // Nothing is kept of a request that is not copied.
        request.map(|body| ReplayBody::new(body, 0).0)
    }

    fn keep(&self, request: Request<B>) -> (KeptRequest<B>, Self::Request) {
        let (head, body) = request.into_parts();
        let (body, replayed) = ReplayBody::new(body, self.max_body);
        let kept = KeptRequest {
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            headers: head.headers.clone(),
            body: replayed,
        };
        (kept, Request::from_parts(head, body))
    }

    fn copy(&self, kept: KeptRequest<B>) -> Option<Self::Request> {
        // If the body is still being read, the copy would take its rest.
        if !kept.body.may_double() {
            return None;
        }
        let mut copy = Request::new(kept.body.again());
        *copy.method_mut() = kept.method;
        *copy.uri_mut() = kept.uri;
        *copy.version_mut() = kept.version;
        *copy.headers_mut() = kept.headers;
        copy.extensions_mut().insert(Mirrored);
        Some(copy)
    }
}

impl<B> std::fmt::Debug for KeptRequest<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeptRequest").field("uri", &self.uri).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};
    use hyper::body::Bytes;

    use super::*;

    fn request(body: &'static str) -> Request<Full<Bytes>> {
        Request::post("/orders").header("x-a", "1").body(Full::from(body)).expect("a request")
    }

    async fn read<B: Body<Error: std::fmt::Debug>>(request: Request<B>) -> Vec<u8> {
        request.into_body().collect().await.expect("a body").to_bytes().to_vec()
    }

    #[tokio::test]
    async fn a_copy_is_there_as_soon_as_the_body_has_been_read() {
        let mirror = HttpMirror::new();
        let (kept, sent) = mirror.keep(request("one kilogram"));
        assert_eq!(read(sent).await, b"one kilogram");
        let copy = mirror.copy(kept).expect("all of it is there");
        assert_eq!(copy.headers()["x-a"], "1");
        assert_eq!(read(copy).await, b"one kilogram");
    }

    #[tokio::test]
    async fn a_body_that_was_not_read_or_is_too_long_is_not_copied() {
        let mirror = HttpMirror::new().max_body(4);
        let (kept, sent) = mirror.keep(request("abc"));
        assert!(mirror.copy(kept).is_none(), "not read yet");
        assert_eq!(read(sent).await, b"abc", "and the request has its body all the same");

        let (kept, sent) = mirror.keep(request("abcdefgh"));
        assert_eq!(read(sent).await, b"abcdefgh");
        assert!(mirror.copy(kept).is_none(), "too long");
        assert_eq!(read(mirror.pass(request("abcdefgh"))).await, b"abcdefgh");
    }
}
