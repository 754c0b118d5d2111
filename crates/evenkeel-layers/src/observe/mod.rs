//! Observes: metrics and traces of attempts, and of gates that close and open, with the reason.
//!
//! **Use it** directly below a balancer to see each endpoint: how many attempts, how they ended,
//! how long they took, which gate keeps it closed. Alone, around any service, it counts calls
//! instead. Both may be in one stack; the one at the top shows what callers see. **Not** to decide
//! anything: the other layers react, and all of them count and trace what they do without it.
//!
//! ```
//! use std::{convert::Infallible, sync::Arc};
//! use evenkeel::core::{endpoint::Endpoint, node::Node};
//! use evenkeel::{balance::BalanceLayer, observe::ObserveLayer};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let endpoints: Vec<Endpoint> = vec!["10.0.0.1:80".parse()?, "10.0.0.2:80".parse()?];
//! let client = ServiceBuilder::new()
//!     .layer(ObserveLayer::new()) // calls
//!     .layer(BalanceLayer::p2c(endpoints))
//!     .layer(ObserveLayer::new()) // attempts, per endpoint
//!     .service(|_: &Arc<Node>| service_fn(|n: u32| async move { Ok::<_, Infallible>(n + 1) }));
//!
//! assert_eq!(client.oneshot(1).await?, 2);
//! # Ok(())
//! # }
//! ```
//!
//! # Configured
//! ```
//! use evenkeel::observe::ObserveLayer;
//!
//! let observe = ObserveLayer::new().client("greeter").max_endpoints(200);
//! # drop(observe);
//! ```
//!
//! # Metrics
//! Enable the feature `metrics` and install a recorder of the `metrics` facade in `main`, before
//! the stack is built: for example `PrometheusBuilder::new().install_recorder()` of
//! metrics-exporter-prometheus. [`evenkeel_metrics`] lists all names and says what remains of an
//! endpoint that left. Its `describe` tells the recorder the names.
//!
//! # Traces
//! Each layer has a target of its own, `evenkeel::observe` here, `evenkeel::retry`, `evenkeel::hedge`,
//! `evenkeel::deadline`, `evenkeel::breaker`, `evenkeel::outlier` and `evenkeel::balance` there:
//!
//! * at `debug` a span `attempt` around each attempt, with its `endpoint`, or `call` with its
//!   `client`, and an event when it has ended, with `outcome`, `error.type` and `latency`;
//! * at `info` each gate that closes or opens, with the `endpoint` and the `gate`; that of a limit
//!   at `debug`, since it closes and opens all the time.
//!
//! # OpenTelemetry
//! The span `attempt` is made for [tracing-opentelemetry]: its kind is `client`, its parent is the
//! span in which the call was made, and an error without a response sets its status. Let its target
//! pass the filter of the tracer at `debug`: `evenkeel::observe=debug`. Each attempt of a call, a
//! retry or a hedge, is then a span of its own.
//!
//! A server continues the trace if the request has `traceparent` and `tracestate`. The headers of
//! the caller's request pass unchanged, including `baggage`. To send the attempt's own span
//! instead, add a layer below this one that writes it, in that span and with the program's
//! propagator:
//!
//! ```text
//! .layer(BalanceLayer::p2c(discovery))
//! .layer(ObserveLayer::new())
//! .layer(PerEndpoint::new(MapRequestLayer::new(|mut request: http::Request<_>| {
//!     let context = tracing::Span::current().context(); // of OpenTelemetrySpanExt
//!     let headers = &mut HeaderInjector(request.headers_mut()); // of opentelemetry-http
//!     opentelemetry::global::get_text_map_propagator(|it| it.inject_context(&context, headers));
//!     request
//! })))
//! ```
//!
//! [tracing-opentelemetry]: https://docs.rs/tracing-opentelemetry
//!
//! # What it costs
//! A reference to what is known of the endpoint, cloned with its service, and a span that is not
//! made while no subscriber listens. No allocation. With metrics a counter, a histogram, a gauge up
//! and down, and two readings of the clock for an attempt that has to wait. Without a recorder
//! these are empty calls, but the clock is read.

mod layer;
mod monitor;
mod service;

pub use self::{
    layer::ObserveLayer,
    service::{Observe, ObserveFuture, Observed, ObservedFuture},
};
