//! A stack with the interface of `reqwest::Client`.

use std::{
    error::Error,
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use evenkeel_core::{BoxError, deadline::CallDeadline, error::DeadlineExceeded};
use evenkeel_metrics::Client;
use futures_util::future::BoxFuture;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Bytes;
use pin_project_lite::pin_project;
use reqwest::IntoUrl;
use serde::Serialize;
use tokio::time::Sleep;
use tower_service::Service;

use crate::clock;

/// Gives a stack the interface of `reqwest::Client`: `.get(url).query(..).json(..).send()`.
///
/// The given client builds the requests, with its default headers and other settings, and the stack sends
/// them. Usually the same client stands at the bottom of the stack.
///
/// - The [timeout](ReqwestRequest::timeout) of a request covers the whole call, as without a stack: its
///   attempts, the waits between them and the body, whatever stands at the bottom. The timeout of the
///   *client* at the bottom covers each attempt. For a timeout of each call, put a `DeadlineLayer` at the
///   top of the stack.
/// - [`Response::url`](reqwest::Response::url) is the URL that the request named, or where redirects led, not
///   the address of the endpoint.
/// - A retry sends the body again from memory, up to [`HttpRetry::max_body`](crate::HttpRetry::max_body). A POST is
///   repeated only if [`Idempotent`](crate::Idempotent) says so: `.extension(Idempotent(true))`.
/// - Under retries, reqwest gets bodies as streams. So it does not follow redirects that need the body again,
///   307 and 308, but returns them as the response.
///
/// ```
/// use std::time::Duration;
/// use evenkeel::core::{BoxError, endpoint::Endpoint, retry::Budget};
/// use evenkeel::http::{HttpDeadline, HttpRetry, ReqwestStack, SharedClient};
/// use evenkeel::{balance::BalanceLayer, deadline::DeadlineLayer, retry::RetryLayer};
/// use tower::ServiceBuilder;
///
/// # async fn run(endpoints: Vec<Endpoint>) -> Result<(), BoxError> {
/// let reqwest = reqwest::Client::new();
/// let stack = ServiceBuilder::new()
///     .layer(DeadlineLayer::new(Duration::from_secs(2)).carry(HttpDeadline))
///     .layer(RetryLayer::new(Budget::default()).rules(HttpRetry::new()))
///     .layer(BalanceLayer::p2c(endpoints))
///     .service(SharedClient::reqwest(reqwest.clone()));
/// let client = ReqwestStack::new(reqwest, stack);
///
/// let orders = client.get("http://orders.internal/orders").query(&[("page", "2")]).send().await?;
/// println!("{}", orders.error_for_status()?.text().await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ReqwestStack {
    client: reqwest::Client,
    call: Arc<Call>,
    name: Client,
}

type Call = dyn Fn(Request<reqwest::Body>) -> BoxFuture<'static, Answer> + Send + Sync;
type Answer = Result<Response<reqwest::Body>, BoxError>;

impl ReqwestStack {
    /// Builds requests with `client`, and sends them through clones of `stack`.
    #[must_use]
    pub fn new<S, R>(client: reqwest::Client, stack: S) -> Self
    where
        S: Service<Request<reqwest::Body>, Response = Response<R>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        R: Body<Data: Into<Bytes>, Error: Into<BoxError>> + Send + Sync + 'static,
    {
        let call = move |request| {
            let mut stack = stack.clone();
            let answer = async move {
                poll_fn(|cx| stack.poll_ready(cx)).await.map_err(Into::into)?;
                let response = stack.call(request).await.map_err(Into::into)?;
                Ok(response.map(reqwest::Body::wrap))
            };
            Box::pin(answer) as BoxFuture<'static, Answer>
        };
        Self { client, call: Arc::new(call), name: Client::current() }
    }

    /// A `GET` of `url`.
    pub fn get(&self, url: impl IntoUrl) -> ReqwestRequest {
        self.request(Method::GET, url)
    }

    /// A `POST` to `url`.
    pub fn post(&self, url: impl IntoUrl) -> ReqwestRequest {
        self.request(Method::POST, url)
    }

    /// A `PUT` of `url`.
    pub fn put(&self, url: impl IntoUrl) -> ReqwestRequest {
        self.request(Method::PUT, url)
    }

    /// A `PATCH` of `url`.
    pub fn patch(&self, url: impl IntoUrl) -> ReqwestRequest {
        self.request(Method::PATCH, url)
    }

    /// A `DELETE` of `url`.
    pub fn delete(&self, url: impl IntoUrl) -> ReqwestRequest {
        self.request(Method::DELETE, url)
    }

    /// A `HEAD` of `url`.
    pub fn head(&self, url: impl IntoUrl) -> ReqwestRequest {
        self.request(Method::HEAD, url)
    }

    /// A request of any method.
    pub fn request(&self, method: Method, url: impl IntoUrl) -> ReqwestRequest {
        let builder = self.client.request(method, url);
        ReqwestRequest { stack: self.clone(), builder, extensions: Extensions::new() }
    }

    /// Sends a request that was built in another way.
    ///
    /// # Errors
    /// The error of the stack, [`DeadlineExceeded`] if the request's own timeout has passed, or a
    /// `reqwest::Error` if the request is not valid. [`cause`](evenkeel_core::error::cause) finds a
    /// `reqwest::Error` that came from below.
    pub async fn execute(&self, request: reqwest::Request) -> Result<reqwest::Response, BoxError> {
        self.send(request, Extensions::new()).await
    }

    async fn send(
        &self,
        request: reqwest::Request,
        extensions: Extensions,
    ) -> Result<reqwest::Response, BoxError> {
        let timeout = request.timeout().copied();
        let mut request = Request::<reqwest::Body>::try_from(request)?;
        request.extensions_mut().extend(extensions);
        let Some(timeout) = timeout else { return Ok((self.call)(request).await?.into()) };
        // The leaf gives each attempt what is left of it, and retries end when it passes.
        let ours = CallDeadline(clock::now() + timeout);
        let known = request.extensions().get::<CallDeadline>().copied();
        request.extensions_mut().insert(known.map_or(ours, |known| known.min(ours)));
        let mut sleep = Box::pin(tokio::time::sleep(timeout));
        let mut answer = (self.call)(request);
        let answer = poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Pending => sleep.as_mut().poll(cx).map(|()| None),
            answer => answer.map(Some),
        });
        let Some(answer) = answer.await else {
            evenkeel_metrics::count_deadline_exceeded(&self.name);
            return Err(DeadlineExceeded::new(timeout).into());
        };
        let name = self.name.clone();
        let in_time = |inner| InTime { inner, sleep: Some(sleep), timeout, name };
        Ok(answer?.map(in_time).map(reqwest::Body::wrap).into())
    }
}

impl fmt::Debug for ReqwestStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReqwestStack").field("client", &self.client).finish_non_exhaustive()
    }
}

pin_project! {
    /// The body of a response, which fails if it is not complete in time.
    struct InTime {
        #[pin]
        inner: reqwest::Body,
        // `None` once it has ended.
        sleep: Option<Pin<Box<Sleep>>>,
        timeout: Duration,
        name: Client,
    }
}

impl Body for InTime {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        let Some(sleep) = this.sleep else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = this.inner.poll_frame(cx) {
            if frame.is_none() {
                *this.sleep = None;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        ready!(sleep.as_mut().poll(cx));
        *this.sleep = None;
        evenkeel_metrics::count_deadline_exceeded(this.name);
        let late = Late(DeadlineExceeded::new(*this.timeout));
        Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, late).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.sleep.is_none() || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Wrapped in an `io::Error`, which reqwest recognises as a timeout. An `io::Error` hides the error that
/// it wraps, but not the source of that.
#[derive(Debug)]
struct Late(DeadlineExceeded);

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the response was not complete in time")
    }
}

impl Error for Late {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

/// A request of a [`ReqwestStack`] that is being built, like reqwest's `RequestBuilder`.
#[derive(Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct ReqwestRequest {
    stack: ReqwestStack,
    builder: reqwest::RequestBuilder,
    extensions: Extensions,
}

impl ReqwestRequest {
    /// Sends the request through the stack.
    ///
    /// # Errors
    /// As [`ReqwestStack::execute`].
    pub async fn send(self) -> Result<reqwest::Response, BoxError> {
        self.stack.send(self.builder.build()?, self.extensions).await
    }

    /// Adds a header.
    pub fn header<K, V>(self, name: K, value: V) -> Self
    where
        HeaderName: TryFrom<K, Error: Into<http::Error>>,
        HeaderValue: TryFrom<V, Error: Into<http::Error>>,
    {
        self.with(|builder| builder.header(name, value))
    }

    /// Sets headers, replacing those of the same names.
    pub fn headers(self, headers: HeaderMap) -> Self {
        self.with(|builder| builder.headers(headers))
    }

    /// Adds basic authentication: a user name and a password.
    pub fn basic_auth(self, user: impl fmt::Display, password: Option<impl fmt::Display>) -> Self {
        self.with(|builder| builder.basic_auth(user, password))
    }

    /// Adds a bearer token.
    pub fn bearer_auth(self, token: impl fmt::Display) -> Self {
        self.with(|builder| builder.bearer_auth(token))
    }

    /// Adds to the query of the URL.
    pub fn query(self, query: &(impl Serialize + ?Sized)) -> Self {
        self.with(|builder| builder.query(query))
    }

    /// Sets the body.
    pub fn body(self, body: impl Into<reqwest::Body>) -> Self {
        self.with(|builder| builder.body(body))
    }

    /// Sends JSON.
    pub fn json(self, json: &(impl Serialize + ?Sized)) -> Self {
        self.with(|builder| builder.json(json))
    }

    /// Sends a form.
    pub fn form(self, form: &(impl Serialize + ?Sized)) -> Self {
        self.with(|builder| builder.form(form))
    }

    /// Sets how long the whole call may take: all attempts and the body of the response together. By default
    /// only the limits of the stack and of the client apply.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|builder| builder.timeout(timeout))
    }

    /// Sets the version of HTTP.
    pub fn version(self, version: Version) -> Self {
        self.with(|builder| builder.version(version))
    }

    /// Adds a request extension, which the layers of the stack read: [`Idempotent`](crate::Idempotent),
    /// [`HashKey`](crate::HashKey), [`Why`](evenkeel_core::why::Why).
    pub fn extension<T: Clone + Send + Sync + 'static>(mut self, extension: T) -> Self {
        self.extensions.insert(extension);
        self
    }

    /// Gives access to reqwest's own builder, for what only that can do, such as `multipart`.
    pub fn with(
        self,
        change: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Self {
        Self { builder: change(self.builder), ..self }
    }
}
