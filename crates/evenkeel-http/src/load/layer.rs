//! Measures and reports a server's load.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use evenkeel_core::{
    load::{Arrival, ServerLoad},
    time::Timestamp,
};
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body::Body;
use hyper::body::Bytes;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    LoadMeter, ReportForm, ReportLoadBody,
    body::{Answer, HeadOutcome},
    message,
};
use crate::{clock, tunnel::Offer};

/// The default path on which a server answers probes of its load.
pub const PROBE_PATH: &str = "/.well-known/evenkeel/load";

/// Decides the answer to a probe from its request and the measured load.
type AnswerWith = Arc<dyn Fn(&Uri, &HeaderMap, ServerLoad) -> ServerLoad + Send + Sync>;

/// Measures a server's load, answers probes, and reports with responses.
///
/// It stands at the top of a server, so that requests that wait below it count. It measures the requests in
/// flight, until the end of their bodies or upgraded connections, and the latency until the heads of responses
/// at that load. A failure gives no sample of latency, since a server that fails at once must not look fast. A
/// cancelled request leaves no trace.
///
/// * **Probes**, of [`HttpLoadProbe`](crate::HttpLoadProbe) and [`GrpcLoadProbe`](crate::GrpcLoadProbe), are
///   answered before any layer below: `GET` of [`PROBE_PATH`], with the load in the header
///   `endpoint-load-metrics` and in the body, and `evenkeel.load.v1.LoadService/Probe`. Callers with
///   [`Prequal`](evenkeel_core::policy::Prequal) use them.
/// * **Reports** are added to responses if [set](Self::report), in ORCA's forms, for
///   [`ClientSideWeighted`](evenkeel_core::policy::ClientSideWeighted), Envoy and gRPC.
/// * With the feature `orca`, `xds.service.orca.v3.OpenRcaService/StreamCoreMetrics` is answered, too:
///   reports out of band.
///
/// **Use it** on servers with callers that balance by load. **Not** if a proxy in between answers for many
/// servers: callers would attribute the load of one server to another. Probes and reports show strangers how
/// busy a server is. On a public port, answer them only on the path of an inner listener.
///
/// ```
/// use std::convert::Infallible;
/// use evenkeel::http::{LoadMeter, PROBE_PATH, ReportForm, ReportLoadLayer};
/// use http::{Request, Response};
/// use http_body_util::{Empty, Full};
/// use hyper::body::Bytes;
/// use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Infallible> {
/// let meter = LoadMeter::new();
/// let mut server = ServiceBuilder::new()
///     .layer(ReportLoadLayer::new(meter.clone()).report(ReportForm::Text))
///     .service(service_fn(|_: Request<Empty<Bytes>>| async {
///         Ok::<_, Infallible>(Response::new(Full::from("hello")))
///     }));
///
/// let request = |path: &str| Request::get(path).body(Empty::new()).unwrap();
/// let answer = server.ready().await?.call(request("/hello")).await?;
/// assert!(answer.headers()["endpoint-load-metrics"].to_str().unwrap().starts_with("TEXT "));
/// assert_eq!(meter.in_flight(), 1, "until the end of the body");
/// drop(answer);
///
/// let probed = server.ready().await?.call(request(PROBE_PATH)).await?;
/// let load = &probed.headers()["endpoint-load-metrics"];
/// assert!(load.to_str().unwrap().starts_with("TEXT named_metrics.evenkeel.in_flight=0,"));
/// # Ok(())
/// # }
/// ```
///
/// # What it costs
/// A request costs an atomic addition, two clock reads and a wrapper around the response's body. A report
/// costs one or a few allocations and some hundred nanoseconds.
#[derive(Clone)]
pub struct ReportLoadLayer {
    meter: LoadMeter,
    path: &'static str,
    form: Option<ReportForm>,
    answer_with: Option<AnswerWith>,
}

impl ReportLoadLayer {
    /// Measures into `meter` and answers probes. Responses carry no reports.
    #[must_use]
    pub fn new(meter: LoadMeter) -> Self {
        Self { meter, path: PROBE_PATH, form: None, answer_with: None }
    }

    /// Sets the path on which probes are answered. Default: [`PROBE_PATH`].
    ///
    /// # Panics
    /// If it does not begin with a slash.
    #[must_use]
    pub fn path(mut self, path: &'static str) -> Self {
        assert!(path.starts_with('/'), "a path begins with a slash");
        self.path = path;
        self
    }

    /// Adds a report in this form to each response. Default: none.
    ///
    /// It is in the head, or in the trailers of a gRPC response if the form is binary.
    #[must_use]
    pub fn report(mut self, form: ReportForm) -> Self {
        self.form = Some(form);
        self
    }

    /// Lets `answer` change the answer to a probe, depending on the probe's request.
    ///
    /// If a server has in its cache what the probe names, it may answer with a tenth of its load to attract
    /// the request (Prequal, synchronous mode).
    #[must_use]
    pub fn answer_with(
        mut self,
        answer: impl Fn(&Uri, &HeaderMap, ServerLoad) -> ServerLoad + Send + Sync + 'static,
    ) -> Self {
        self.answer_with = Some(Arc::new(answer));
        self
    }

    /// The answer, if a request is a probe.
    fn answer<B>(&self, request: &Request<B>) -> Option<Answer> {
        let path = request.uri().path();
        let is_post = *request.method() == Method::POST;
        #[cfg(feature = "orca")]
        if is_post && path == super::stream::STREAM {
            return Some(Answer::Stream(self.meter.clone()));
        }
        let is_grpc = is_post && path == message::PROBE;
        if !is_grpc && path != self.path {
            return None;
        }
        let load = self.meter.load();
        let load = match &self.answer_with {
            Some(answer) => answer(request.uri(), request.headers(), load),
            None => load,
        };
        Some(if is_grpc { Answer::Grpc(load) } else { Answer::Http(load) })
    }
}

impl fmt::Debug for ReportLoadLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReportLoadLayer")
            .field("meter", &self.meter)
            .field("path", &self.path)
            .field("form", &self.form)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for ReportLoadLayer {
    type Service = ReportLoad<S>;

    fn layer(&self, inner: S) -> ReportLoad<S> {
        ReportLoad { inner, layer: self.clone() }
    }
}

/// Measures and reports a server's load. See [`ReportLoadLayer`].
#[derive(Clone, Debug)]
pub struct ReportLoad<S> {
    inner: S,
    layer: ReportLoadLayer,
}

impl<S, B, R> Service<Request<B>> for ReportLoad<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Data = Bytes>,
{
    type Response = Response<ReportLoadBody<R>>;
    type Error = S::Error;
    type Future = ReportLoadFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if let Some(answer) = self.layer.answer(&request) {
            return ReportLoadFuture { answer: Some(answer), inner: None };
        }
        let meter = self.layer.meter.clone();
        let arrival = meter.enter();
        let offer = Offer::of(&mut request, || None);
        let inner = UnderWay {
            offer,
            future: self.inner.call(request),
            arrival: Some(arrival),
            since: clock::now(),
            meter,
            form: self.layer.form,
        };
        ReportLoadFuture { answer: None, inner: Some(inner) }
    }
}

pin_project! {
    struct UnderWay<F> {
        #[pin]
        future: F,
        // Dropped with the future, so a cancelled request leaves no trace.
        arrival: Option<Arrival>,
        offer: Offer,
        since: Timestamp,
        meter: LoadMeter,
        form: Option<ReportForm>,
    }
}

pin_project! {
    /// The future of [`ReportLoad`].
    pub struct ReportLoadFuture<F> {
        answer: Option<Answer>,
        #[pin]
        inner: Option<UnderWay<F>>,
    }
}

impl<F, R, E> Future for ReportLoadFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body<Data = Bytes>,
{
    type Output = Result<Response<ReportLoadBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else {
            let answer = this.answer.take().expect("polled again after it was ready");
            return Poll::Ready(Ok(answer.into_response()));
        };
        let inner = inner.project();
        let result = ready!(inner.future.poll(cx));
        let arrival = inner.arrival.take().expect("polled again after it was ready");
        let mut response = match result {
            Ok(response) => response,
            Err(error) => {
                inner.meter.count(true);
                return Poll::Ready(Err(error));
            }
        };
        let verdict = HeadOutcome::of(&response);
        if verdict.is_good() {
            let now = clock::now();
            arrival.record_success(now.since(*inner.since), now);
        }
        if let Some(has_failed) = verdict.has_failed() {
            inner.meter.count(has_failed);
        }
        let mut form = *inner.form;
        if let Some(now) = form.filter(|form| !verdict.is_for_trailers(*form)) {
            let (name, value) = now.header(&inner.meter.report());
            response.headers_mut().insert(name, value);
            form = None;
        }
        let arrival = inner.offer.accept(&mut response, arrival);
        let meter = inner.meter.clone();
        Poll::Ready(Ok(response.map(|body| {
            ReportLoadBody::measured(body, arrival, verdict.is_to_come().then_some(meter), form)
        })))
    }
}

impl<F> fmt::Debug for ReportLoadFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReportLoadFuture").finish_non_exhaustive()
    }
}
