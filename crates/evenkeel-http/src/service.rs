//! The service that speaks to one endpoint.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use evenkeel_core::{BoxError, error::cause, node::Node, why::Why};
use http::{Method, Request, Response, Version, header, uri::Scheme};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error as ClientError, ResponseFuture};
use tower_service::Service;

use crate::{
    connector::{RequestBody, Settings},
    cookie,
    dial::Dial,
    error::{ConnectError, InvalidRequest, RequestError},
    hints,
    hop::{self, Hop},
    multiplexed::{Answer, Multiplexed},
    per_runtime::PerRuntime,
    target::{self, Host},
};

/// Speaks to one endpoint, over connections that end when its last clone is dropped.
///
/// [`HttpConnector`](crate::HttpConnector) makes it. It is always ready, connects when there is a
/// request, and fails with a [`ConnectError`] or a [`RequestError`].
pub struct HttpService<B>(Arc<Inner<B>>);

struct Inner<B> {
    node: Arc<Node>,
    host: Host,
    is_tls_forced: bool,
    transport: Transport<B>,
}

/// How requests are put on connections.
pub(crate) enum Transport<B> {
    /// A pool of HTTP/1.1 connections, or of the version that TLS negotiates.
    Pooled(Pooled<B>),
    /// One HTTP/2 connection.
    Multiplexed(Arc<Multiplexed<B>>),
}

/// Pools that are made with the first request: a client with many endpoints may never call most of them.
pub(crate) struct Pooled<B> {
    settings: Arc<Settings>,
    clients: PerRuntime<Box<Client<Dial, B>>>,
}

impl<B> Pooled<B> {
    pub(crate) fn new(settings: Arc<Settings>) -> Self {
        Self { settings, clients: PerRuntime::new() }
    }
}

impl<B: RequestBody> Pooled<B> {
    fn request(&self, node: &Arc<Node>, request: Request<B>) -> ResponseFuture {
        let make = || Box::new(self.settings.pooled(node.clone()));
        self.clients.with(make, |client| client.request(request))
    }
}

impl<B> HttpService<B> {
    pub(crate) fn new(
        node: Arc<Node>,
        host: Host,
        is_tls_forced: bool,
        transport: Transport<B>,
    ) -> Self {
        Self(Arc::new(Inner { node, host, is_tls_forced, transport }))
    }
}

impl<B: RequestBody> Inner<B> {
    /// Completes the URI, and `Host` if the URI does not carry it, and removes what was meant for the
    /// previous hop.
    fn address(&self, request: &mut Request<B>) -> Result<(), InvalidRequest> {
        let is_https = self.is_tls_forced || request.uri().scheme() == Some(&Scheme::HTTPS);
        let scheme = if is_https { Scheme::HTTPS } else { Scheme::HTTP };
        let named = target::named_authority(request)?;
        let hop = match (&self.transport, is_https) {
            (Transport::Multiplexed(_), _) => Hop::Http2,
            (Transport::Pooled(_), true) => Hop::Either,
            (Transport::Pooled(_), false) => Hop::Http1,
        };
        hop::clean_request(request.headers_mut(), hop)?;
        if let Transport::Pooled(_) = self.transport {
            // A request may have arrived over another version.
            *request.version_mut() = Version::HTTP_11;
            cookie::join(request.headers_mut());
            hop::delimit(request);
            if !is_https && request.method() != Method::CONNECT {
                // Without TLS the pool does not need the authority: the same connections serve all.
                target::set_host(request, named.as_ref(), &self.host)?;
                return target::set_uri(request, scheme, self.host.authority.clone());
            }
        }
        // HTTP/2 has only `:authority` (RFC 9113, section 8.3.1), and hyper-util writes `Host`
        // from the URI if HTTP/1.1 was negotiated.
        request.headers_mut().remove(header::HOST);
        let authority = named.unwrap_or_else(|| self.host.authority.clone());
        target::set_uri(request, scheme, authority)
    }
}

impl<B: RequestBody> Service<Request<B>> for HttpService<B> {
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = HttpFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> HttpFuture {
        let node = self.0.node.clone();
        let why = hints::why(request.extensions());
        if let Err(error) = self.0.address(&mut request) {
            let error = RequestError::new(node.address().clone(), error);
            return HttpFuture { node, why, state: State::Refused(Some(error)) };
        }
        let state = match &self.0.transport {
            Transport::Pooled(pool) => State::Pooled(pool.request(&node, request)),
            Transport::Multiplexed(connection) => {
                State::Multiplexed(connection.clone().request(request))
            }
        };
        HttpFuture { node, why, state }
    }
}

impl<B> Clone for HttpService<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B> fmt::Debug for HttpService<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpService").field(self.0.node.address()).finish()
    }
}

/// The future of [`HttpService`].
pub struct HttpFuture {
    node: Arc<Node>,
    why: Option<Why>,
    state: State,
}

enum State {
    Pooled(ResponseFuture),
    Multiplexed(Answer),
    Refused(Option<RequestError>),
}

impl Future for HttpFuture {
    type Output = Result<Response<Incoming>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let result = match &mut this.state {
            State::Pooled(answer) => {
                ready!(Pin::new(answer).poll(cx)).map_err(|error| unwrap(&this.node, error))
            }
            State::Multiplexed(answer) => ready!(answer.as_mut().poll(cx)),
            State::Refused(error) => {
                Err(error.take().expect("a future is not polled after it is ready").into())
            }
        };
        Poll::Ready(result.and_then(|mut response| {
            hop::clean_response(response.status(), response.headers_mut())
                .map_err(|error| RequestError::new(this.node.address().clone(), error))?;
            hints::answer(response.extensions_mut(), &this.node, this.why.take());
            Ok(response)
        }))
    }
}

/// The same error for the same fault, over any transport.
fn unwrap(node: &Node, error: ClientError) -> BoxError {
    match cause::<ConnectError>(&error) {
        Some(error) => error.clone().into(),
        None => RequestError::new(node.address().clone(), error).into(),
    }
}

impl fmt::Debug for HttpFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpFuture").field("node", &self.node).finish_non_exhaustive()
    }
}
