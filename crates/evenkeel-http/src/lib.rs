//! HTTP and gRPC for evenkeel: connections to endpoints, and the outcomes of requests.
//!
//! [`HttpConnector`] stands below a balancer and speaks HTTP/1.1 or HTTP/2 to each endpoint, over
//! connections that belong to that endpoint alone. [`SharedClient`] puts a client that you already have
//! in its place, and [`HttpLeaf`] your own client for each endpoint. All of them use [`HttpTraffic`], by
//! which the balancer reads hints from a request ([`HashKey`], [`Prefer`], [`Exclude`], [`Subset`]) and the
//! outcome from a response. For a policy that hashes, [`HashBy`] computes the hash from a header, a cookie,
//! the path or a query parameter.
//!
//! ```
//! use std::sync::Arc;
//! use evenkeel::core::{connect::Connect, node::Node};
//! use evenkeel::http::{HttpConnector, ServedBy};
//! # use http_body_util::{BodyExt, Empty};
//! # use hyper::{body::{Bytes, Incoming}, service::service_fn};
//! use tower::ServiceExt;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), evenkeel::core::BoxError> {
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let address = listener.local_addr()?;
//! # tokio::spawn(async move {
//! #     let (stream, _) = listener.accept().await?;
//! #     let answer = service_fn(|_: http::Request<Incoming>| async {
//! #         Ok::<_, std::io::Error>(http::Response::new("hello".to_owned()))
//! #     });
//! #     let io = hyper_util::rt::TokioIo::new(stream);
//! #     hyper::server::conn::http1::Builder::new().serve_connection(io, answer).await?;
//! #     Ok::<_, evenkeel::core::BoxError>(())
//! # });
//! let connector = HttpConnector::new().authority("greeter.internal");
//!
//! // A balancer does this for each endpoint.
//! let node = Arc::new(Node::new(address.into()));
//! let service = connector.connect(&node);
//!
//! let request = http::Request::get("/hello").body(Empty::<Bytes>::new())?;
//! let response = service.oneshot(request).await?;
//!
//! assert_eq!(response.extensions().get::<ServedBy>().unwrap().address(), node.address());
//! assert_eq!(response.into_body().collect().await?.to_bytes(), "hello");
//! # Ok(())
//! # }
//! ```
//!
//! # gRPC
//! A generated tonic client takes a balanced stack over [`HttpConnector::grpc`] directly:
//! `GreeterClient::new(stack)`. There is no `Channel` in between. [`GrpcStatusLayer`] at its top turns errors
//! of the stack, such as a deadline, no endpoints or a refused connection, into the status that the client's
//! callers see. [`HttpRetry::grpc`] makes another attempt where gRPC's own retries would. If you need a
//! `Channel`, put it below the balancer in [`HttpLeaf`], which reads the status of its responses.
//!
//! # TLS
//! The feature `tls` adds TLS by rustls, verified by the system's roots by default. The program chooses
//! the crypto provider: install one first in `main`.
//!
//! # Health
//! [`HttpProbe`], [`GrpcProbe`], [`TcpProbe`] and `TlsProbe` ask endpoints whether they are healthy, for the
//! layer of active health checks in `evenkeel-layers`.
//!
//! # Load
//! A server with [`ReportLoadLayer`] answers [`HttpLoadProbe`] and [`GrpcLoadProbe`], which the policy
//! `prequal` uses. It also reports its load with its responses, in the forms of ORCA.
//!
//! # Features
//! | feature | brings |
//! |---|---|
//! | `tls` | `Tls`, `Identity`, `https` URIs, and `TlsProbe` |
//! | `tower-http` | `TowerClassifier`, which lets a classifier of tower-http decide what failed |
//! | `reqwest` | `SharedClient::reqwest`, and `ReqwestStack`, which has the interface of `reqwest::Client` |
//! | `orca` | reports of load as JSON, in binary and out of band, and clients that read them |
//! | `sticky` | `StickyLayer`: sessions that stay on their endpoint by a cookie |
//! | `server` | `Drain`, which stops a server without losing a request |
//!
//! # What this crate does not do
//! It does not choose an endpoint, retry, hedge, or bound how long a response may take: layers do.
//! [`HttpRetry`] tells them what may be retried over HTTP and gRPC.
//! It does not follow redirects, keep cookies, decode compression, use proxies or speak HTTP/3. It opens
//! one HTTP/2 connection to an endpoint, not several. It does not cache the addresses of names: discovery
//! does. It connects to a name only if an endpoint has no address.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod body;
mod classify;
mod connector;
mod cookie;
mod deadline;
mod delay;
mod dial;
#[cfg(feature = "server")]
mod drain;
mod error;
mod grpc_status;
mod hash_by;
mod hints;
mod hop;
mod leaf;
mod load;
mod mirror;
mod multiplexed;
mod per_runtime;
mod priority;
mod probe;
mod rate_limit;
#[cfg(feature = "reqwest")]
mod reqwest_client;
#[cfg(feature = "reqwest")]
mod reqwest_stack;
mod retry;
mod service;
mod shared_client;
mod status;
#[cfg(feature = "sticky")]
mod sticky;
mod target;
#[cfg(feature = "tower-http")]
mod tower_classifier;
mod traffic;
mod tunnel;
mod watched;

use evenkeel_clock as clock;

pub use evenkeel_net::ConnectTimeout;
#[cfg(feature = "tls")]
pub use evenkeel_net::{Identity, Tls, TlsError};

pub use body::ResponseBody;
pub use classify::{Classification, Classify, GrpcTrailers, StatusClassifier};
pub use connector::{HttpConnector, RequestBody};
pub use deadline::HttpDeadline;
#[cfg(feature = "server")]
pub use drain::{
    Deregistered, Drain, DrainBody, DrainFuture, DrainHandle, DrainLayer, DrainReport,
    DrainService, Phase, Readiness,
};
pub use error::{ConnectError, InvalidRequest, InvalidResponse, RequestError};
pub use grpc_status::{GrpcStatus, GrpcStatusBody, GrpcStatusFuture, GrpcStatusLayer, grpc_code};
pub use hash_by::{HashBy, RequestHead};
pub use hints::{Exclude, HashKey, Prefer, ServedBy, Subset, Untimed};
pub use leaf::{HttpLeaf, LeafService};
pub use load::{
    InvalidReport, LoadMeter, PROBE_PATH, ReportForm, ReportLoad, ReportLoadBody, ReportLoadFuture,
    ReportLoadLayer,
};
#[cfg(feature = "orca")]
pub use load::{OrcaConnect, OrcaLayer};
pub use mirror::{HttpMirror, KeptRequest, Mirrored};
pub use priority::HeaderPriority;
#[cfg(feature = "tls")]
pub use probe::TlsProbe;
pub use probe::{GrpcLoadProbe, GrpcProbe, HttpLoadProbe, HttpProbe, TcpProbe};
pub use rate_limit::{
    AddressSpender, DiscloseQuota, HeaderSpender, HeedQuota, HeedQuotaFuture, HeedQuotaLayer,
    RateLimitHeaders, RateLimitHeadersFuture, RateLimitHeadersLayer, ServerQuota,
};
#[cfg(feature = "reqwest")]
pub use reqwest_client::{ReqwestFuture, ReqwestService};
#[cfg(feature = "reqwest")]
pub use reqwest_stack::{ReqwestRequest, ReqwestStack};
pub use retry::{
    HttpCall, HttpRetry, Idempotent, Peek, PeekedBody, PreviousAttempts, ReplayBody, Seen,
    Superseded,
};
pub use service::{HttpFuture, HttpService};
pub use shared_client::{SharedClient, SharedFuture, SharedService};
pub use status::{
    AnswerBody, ErrorToResponse, ErrorToResponseFuture, ErrorToResponseLayer, error_status,
};
#[cfg(feature = "sticky")]
pub use sticky::{SameSite, Sticky, StickyFuture, StickyLayer};
#[cfg(feature = "tower-http")]
pub use tower_classifier::TowerClassifier;
pub use traffic::{HttpTraffic, InFlight};
