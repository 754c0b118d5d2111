//! Composable tower layers that make a load-balancing pipeline of any hyper, axum or tonic stack.
//!
//! Endpoints come from a [discovery](#where-endpoints-come-from). A [policy](#which-endpoint-takes-a-request)
//! chooses one for each request, and a connector sends the request to it. Endpoints fail and join without
//! callers noticing:
//!
//! ```
//! # #[cfg(all(feature = "http", feature = "discovery"))]
//! # mod program {
//! use evenkeel::{balance::BalanceLayer, discovery::Fixed, http::{HttpConnector, ServedBy}};
//! use http::Request;
//! use http_body_util::{BodyExt, Empty};
//! use tower::{Service, ServiceBuilder, ServiceExt};
//!
//! # pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
//! # pub async fn run(a: String, b: String) -> Result<(), BoxError> {
//! let endpoints = Fixed::parse([a.as_str(), b.as_str()])?; // two servers: "10.0.0.1:8080", ...
//!
//! let mut client = ServiceBuilder::new()
//!     .layer(BalanceLayer::round_robin(endpoints)) // chooses an endpoint for each request
//!     .service(HttpConnector::new().authority("greeter.internal")); // how one is spoken to
//!
//! for _ in 0..4 {
//!     let request = Request::get("/hello").body(Empty::<bytes::Bytes>::new())?;
//!     let response = client.ready().await?.call(request).await?;
//!     let served_by = response.extensions().get::<ServedBy>().map(|by| by.address().to_string());
//!     println!("{served_by:?}: {:?}", response.into_body().collect().await?.to_bytes());
//! }
//! # Ok(())
//! # }
//! # }
//! # #[cfg(all(feature = "http", feature = "discovery"))]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), program::BoxError> {
//! #     use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! #     let mut addresses = Vec::new();
//! #     for _ in 0..2 {
//! #         let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! #         addresses.push(listener.local_addr()?.to_string());
//! #         tokio::spawn(async move {
//! #             while let Ok((mut socket, _)) = listener.accept().await {
//! #                 tokio::spawn(async move {
//! #                     let mut buffer = [0; 4096];
//! #                     while matches!(socket.read(&mut buffer).await, Ok(1..)) {
//! #                         let hello = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
//! #                         if socket.write_all(hello).await.is_err() { return; }
//! #                     }
//! #                 });
//! #             }
//! #         });
//! #     }
//! #     program::run(addresses[0].clone(), addresses[1].clone()).await
//! # }
//! # #[cfg(not(all(feature = "http", feature = "discovery")))]
//! # fn main() {}
//! ```
//!
//! A request travels through the stack from top to bottom. A layer above the balancer runs once for each
//! logical call. A layer below it has one instance for each endpoint. Each part also works alone, in a
//! stack that has nothing else of evenkeel.
//!
//! To begin without choosing layers, take the recommended pipeline, with a deadline, retries, ejection and limits:
//! `client::http(endpoints).build()`, or `client::grpc` and `client::reqwest` (features `http` and `reqwest`).
//!
//! The [guide] has a chapter for each task: a first program, HTTP, gRPC and reqwest clients, policies,
//! health, retries, servers, registries, observing, testing, your own policies and discoveries, and the
//! names that other systems use.
//!
//! # What it does not do
//! It is a library, not a proxy or a mesh: nothing stands between a caller and its endpoint. It does not
//! invent endpoints. If none are known or all are closed, it refuses the call in bounded time, with an
//! error that says why. It retries only if a [`RetryLayer`](retry::RetryLayer) stands above the balancer.
//! It does not choose a TLS library: install a rustls `CryptoProvider` in `main`.
//!
//! # Which layer stands where
//!
//! | layer | what it does | where it stands |
//! |---|---|---|
//! | `GrpcStatusLayer` (feature `http`) | turns errors of the stack into the gRPC status that callers of a generated client see | at the top, under a tonic client |
//! | [`DeadlineLayer`](deadline::DeadlineLayer) | sets one deadline for the call; `HttpDeadline` (feature `http`) carries it | at the top, of a client or a server: it also covers the wait for an endpoint |
//! | [`RetryLayer`](retry::RetryLayer) | makes another attempt when one failed, within a budget; `HttpRetry::new` and `HttpRetry::grpc` (feature `http`) are its rules for HTTP and gRPC | above the balancer |
//! | [`HedgeLayer`](hedge::HedgeLayer) | sends the request to a second endpoint when the first is slow, within the budget | above the balancer, below retries |
//! | [`ThrottleLayer`](admission::ThrottleLayer) | sends fewer requests to a service that refuses many | above the balancer of a client |
//! | `StickyLayer` (feature `sticky`) | keeps each session on its endpoint, by a cookie | above the balancer and retries |
//! | [`FailFastLayer`](fail_fast::FailFastLayer) | fails at once while no endpoint has been available for some time | above the balancer |
//! | [`MirrorLayer`](mirror::MirrorLayer) | sends copies of a share of the requests to another service; `HttpMirror` (feature `http`) | above the balancer |
//! | [`BalanceLayer`](balance::BalanceLayer) | chooses an endpoint for each request | above a `Connect` |
//! | [`ObserveLayer`](observe::ObserveLayer) | records metrics and traces of attempts and gates, or of calls | directly below the balancer; or alone, at the top |
//! | [`PerEndpoint`](per_endpoint::PerEndpoint) | lifts any tower layer: one instance per endpoint | below the balancer |
//! | [`OutlierLayer`](outlier::OutlierLayer) | ejects endpoints that fail more than the others, for a growing time | below the balancer |
//! | [`ActiveHealthLayer`](active_health::ActiveHealthLayer) | probes endpoints and leaves out those that fail; `HttpProbe`, `GrpcProbe`, `TcpProbe`, `TlsProbe` (feature `http`) or a closure | below the balancer |
//! | [`CircuitBreakerLayer`](breaker::CircuitBreakerLayer) | stops sending requests to an endpoint or service that keeps failing | below the balancer: one per endpoint; or alone around any service |
//! | [`RateLimitLayer`](rate_limit::RateLimitLayer) | limits how many requests pass in a period; with the feature `http`, `HeaderSpender` and `AddressSpender` limit each caller, and `RateLimitHeadersLayer` and `HeedQuotaLayer` write and read the headers | alone around any service, of a client or a server; or below the balancer: one per endpoint |
//! | `QuotaLayer` (feature `redis`) | limits requests for all machines together, on Redis | around any service |
//! | `Drain` (feature `server`) | stops a server without losing a request | around a server |
//! | [`ConcurrencyLimitLayer`](concurrency::ConcurrencyLimitLayer) | limits how many calls are in flight, by a fixed or a learned number | below the balancer: one per endpoint; or alone around any service, a server's too |
//! | `ReportLoadLayer` (feature `http`) | measures a server's load, answers probes of it, and reports it with responses | at the top of a server |
//! | `OrcaLayer` (feature `orca`) | has endpoints report their load beside requests | below the balancer |
//! | [`LoadShedLayer`](admission::LoadShedLayer) | refuses requests that would wait too long, the least important first; `HeaderPriority` (feature `http`) reads their priority | at the top of a server |
//! | `HttpConnector` (feature `http`) | speaks HTTP/1.1, HTTP/2 or gRPC to one endpoint | innermost |
//! | `SharedClient` (feature `http`) | the same over a client you have; `ReqwestStack` (feature `reqwest`) has the interface of `reqwest::Client` | innermost |
//! | `HttpLeaf` (feature `http`) | the same over your own service for each endpoint, such as tonic's `Channel` | innermost |
//! | any closure `Fn(&Arc<Node>) -> Service` | speaks any protocol to one endpoint | innermost |
//!
//! # When it does not compile
//!
//! | the compiler says that there is no | solution |
//! |---|---|
//! | `Connect` for some service or layer | lift a tower layer below the balancer: [`PerEndpoint::new(layer)`](per_endpoint::PerEndpoint) |
//! | `Ruled` for `NoRules` | call `.rules(HttpRetry::new())` on the [retries](retry::RetryLayer) or [hedges](hedge::HedgeLayer), or `.rules(AnyRules::new())` if it is not HTTP |
//! | `Service<_>` for `Retry<…>` over `HttpConnector<…>` | under `HttpRetry` bodies are `ReplayBody<…>`: write `HttpConnector::new()`, without a type |
//! | `Service<_>` for `Retry<…>` over a tonic `Channel` | convert the `ReplayBody` to tonic's body with `map_request`: see `HttpLeaf` |
//!
//! # Where endpoints come from
//! With the feature `discovery`:
//!
//! | source | use it for | feature |
//! |---|---|---|
//! | `Fixed`, or a `Vec<Endpoint>` | addresses known at the start; tests | |
//! | `channel` | your own registry client | |
//! | `Changes` | any stream of tower's `Change` | |
//! | `Poll` | an async function that lists endpoints | |
//! | `File` | a file that another program writes: JSON, YAML, TOML; a Kubernetes ConfigMap | `json`, `yaml`, `toml` |
//! | `Dns` | A, AAAA and SRV records | `dns` |
//! | `Consul` | services in Consul | `consul` |
//! | `Etcd` | services in etcd | `etcd` |
//! | `Kubernetes` | services in Kubernetes | `kubernetes` |
//! | `targets::discover` | any of them by an address such as `consul:///web` | |
//! | `merge`, `fallback`, `filter`, `map` | putting them together | |
//! | `subset` | thousands of clients of thousands of endpoints: [`RandomSubset`](core::subset::RandomSubset), [`Aperture`](core::subset::Aperture), [`Rocksteadier`](core::subset::Rocksteadier) | |
//!
//! With `discovery::register` a service enters itself in the registry that its callers read, and leaves
//! it in the right order.
//!
//! # Which endpoint takes a request
//!
//! | policy | chooses | use it when |
//! |---|---|---|
//! | [`p2c`](core::policy::P2c) | the less busy of two | you have no reason for another: the default for most |
//! | [`weighted_p2c`](core::policy::WeightedP2c) | the less busy of two, relative to their weights | endpoints differ in size |
//! | [`peak_ewma`](core::policy::PeakEwma) | the one of two with the lower expected latency | endpoints differ in speed or distance |
//! | [`prequal`](core::policy::Prequal) | the quickest of those probed that are not busier than usual | servers share machines, and can be probed |
//! | [`client_side_weighted_round_robin`](core::policy::ClientSideWeighted) | each in turn, as often as its reported load allows | servers differ in size and report their load |
//! | [`least_loaded`](core::policy::LeastLoaded) | the least busy of all | few endpoints, long requests |
//! | [`round_robin`](core::policy::RoundRobin) | each in turn | endpoints and requests are alike |
//! | [`weighted_round_robin`](core::policy::WeightedRoundRobin) | each in turn, by weight | exact shares, evenly spread |
//! | [`random`](core::policy::Random) | any | clients must not share any state |
//! | [`weighted_random`](core::policy::WeightedRandom) | any, by weight | shares over many clients, canaries |
//! | [`pick_first`](core::policy::PickFirst) | the first that is open | there is a primary with replacements |
//! | [`maglev`](core::policy::Maglev) | the same for the same key, most evenly | caches and sessions, of any number of endpoints |
//! | [`ketama`](core::policy::Ketama) | the same for the same key, few keys move | caches join and leave; beside nginx, or with `Ketama::pingora` beside pingora |
//! | [`ring_hash`](core::policy::RingHash) | the same for the same key | beside Envoy or gRPC, which must agree |
//! | [`rendezvous`](core::policy::Rendezvous) | the same for the same key, fewest keys move | up to some hundred endpoints |
//!
//! The last four use a request's hash. `HashBy` (feature `http`), set on the connector, computes it from a
//! header, a cookie, a query parameter, the path or the caller's address. With `bounded_load` the requests
//! for a very popular key go to other endpoints, too.
//!
//! Other policies wrap one of these, or each other:
//!
//! | policy | does | use it when |
//! |---|---|---|
//! | [`priority`](core::policy::Tiers) | sends to the next tier what the first cannot carry | there is a stand-by |
//! | [`zone_aware`](core::policy::ZoneAware) | keeps as many requests in the caller's zone as that can carry | crossing zones costs |
//! | [`zone_weighted`](core::policy::ZoneWeighted) | gives each zone a share | you decide the shares of zones |
//! | [`prefer_zone`](core::policy::PreferZone) | stays in the caller's zone while that has an endpoint | each zone can carry all its callers |
//! | [`split`](core::policy::Split) | gives each subset a share | canaries, blue and green |
//! | [`slow_start`](core::policy::SlowStart) | sends less to endpoints that are new or just back | endpoints are cold at first |
//! | [`panic_threshold`](core::policy::PanicThreshold) | also uses unhealthy nodes when few are healthy | the healthy ones would be overloaded |
//!
//! Your own policy implements [`Policy`](core::policy::Policy) and [`Picker`](core::policy::Picker). Test
//! it with [the laws](core::policy::laws) and pass it to
//! [`BalanceLayer::with_policy`](balance::BalanceLayer::with_policy).
//!
//! # What a caller sees
//! Each refusal is a small struct in [`core::error`]. [`cause`](core::error::cause) finds it in the chain
//! of causes:
//! [`NoEndpoints`](core::error::NoEndpoints) if none are known,
//! [`AllEndpointsClosed`](core::error::AllEndpointsClosed) if none is open,
//! [`AllEndpointsExcluded`](core::error::AllEndpointsExcluded) if the request itself excludes them,
//! [`NoEndpointPicked`](core::error::NoEndpointPicked) if the policy picks none of the open ones,
//! [`CircuitOpen`](core::error::CircuitOpen) if a breaker that stands alone is open,
//! [`RateLimited`](core::error::RateLimited) if a rate limit or a quota is used up,
//! [`LimitReached`](core::error::LimitReached) if a limit that stands alone is reached,
//! [`Overloaded`](core::error::Overloaded) if a server sheds load,
//! [`RequestThrottled`](core::error::RequestThrottled) if a client spares a service that refuses,
//! [`FailedFast`](core::error::FailedFast) if no endpoint has been available for a while,
//! [`DeadlineExceeded`](core::error::DeadlineExceeded) and
//! [`AttemptTimeout`](core::error::AttemptTimeout) if it took too long. `error_status` gives the HTTP status
//! for each, and `grpc_code` the gRPC code (feature `http`).
//!
//! # Why this endpoint
//! A request may carry a [`Why`](core::why::Why), over HTTP in its extensions. For each attempt it then
//! records which endpoints were considered, how busy and how healthy they were, and which rule decided.
//!
//! # What an operator sees
//! Every layer reports what it does to `tracing`, under its own target such as `evenkeel::retry`. With the
//! feature `metrics` it also reports to the recorder of the `metrics` facade, which the program installs
//! before it builds the stack. [`metrics`] has the table of all names; [`ObserveLayer`](observe::ObserveLayer)
//! adds those of each endpoint. Nothing is formatted or allocated without a subscriber or a recorder.
//!
//! A program with several clients names each of them once, where it builds the stack. The name is in the
//! series, the events and the spans of all its layers. For OpenTelemetry each attempt has a
//! [span](observe#opentelemetry) that can be exported.
//!
//! ```
//! use evenkeel::{balance::BalanceLayer, core::endpoint::Endpoint, metrics::named, outlier::OutlierLayer};
//! # use evenkeel::core::node::Node;
//! # use std::sync::Arc;
//! use tower::ServiceBuilder;
//!
//! # let endpoints: Vec<Endpoint> = Vec::new();
//! # let connector = |_: &Arc<Node>| tower::service_fn(|n: u32| async move { Ok::<_, std::io::Error>(n) });
//! let orders = named("orders", || {
//!     ServiceBuilder::new()
//!         .layer(BalanceLayer::p2c(endpoints))
//!         .layer(OutlierLayer::new())
//!         .service(connector)
//! });
//! # drop(orders);
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "http")]
pub use evenkeel_client as client;
pub use evenkeel_core as core;
#[cfg(feature = "discovery")]
pub use evenkeel_discovery as discovery;
#[cfg(feature = "http")]
pub use evenkeel_http as http;
pub use evenkeel_layers::{
    active_health, admission, balance, breaker, concurrency, deadline, fail_fast, hedge, mirror,
    observe, outlier, per_endpoint, rate_limit, retry,
};
pub use evenkeel_metrics as metrics;
#[cfg(feature = "http")]
pub use evenkeel_net as net;
#[cfg(feature = "redis")]
pub use evenkeel_redis as redis;

/// The guide: a chapter for each task, from the first program to your own policy.
///
/// Every program in it is compiled by a test.
pub mod guide {
    #[cfg(all(feature = "discovery", feature = "http"))]
    #[doc = include_str!("guide/getting_started.md")]
    pub mod getting_started {}
    #[cfg(all(feature = "discovery", feature = "http", feature = "tls"))]
    #[doc = include_str!("guide/http_client.md")]
    pub mod http_client {}
    #[cfg(all(feature = "etcd", feature = "server"))]
    #[doc = include_str!("guide/grpc.md")]
    pub mod grpc {}
    #[cfg(all(feature = "discovery", feature = "reqwest"))]
    #[doc = include_str!("guide/reqwest.md")]
    pub mod reqwest {}
    #[cfg(all(feature = "discovery", feature = "http"))]
    #[doc = include_str!("guide/policies.md")]
    pub mod policies {}
    #[cfg(all(feature = "discovery", feature = "http"))]
    #[doc = include_str!("guide/health.md")]
    pub mod health {}
    #[cfg(feature = "http")]
    #[doc = include_str!("guide/retries.md")]
    pub mod retries {}
    #[cfg(feature = "server")]
    #[doc = include_str!("guide/servers.md")]
    pub mod servers {}
    #[cfg(all(feature = "consul", feature = "http", feature = "server"))]
    #[doc = include_str!("guide/registries.md")]
    pub mod registries {}
    #[cfg(all(feature = "discovery", feature = "http"))]
    #[doc = include_str!("guide/observing.md")]
    pub mod observing {}
    #[cfg(feature = "discovery")]
    #[doc = include_str!("guide/testing.md")]
    pub mod testing {}
    #[cfg(feature = "discovery")]
    #[doc = include_str!("guide/extending.md")]
    pub mod extending {}
    #[doc = include_str!("guide/coming_from.md")]
    pub mod coming_from {}
}

/// The program in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub mod readme {}
