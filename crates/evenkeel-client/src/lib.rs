//! The recommended pipeline in one call, with defaults for everything.
//!
//! [`http()`] makes a client for HTTP and [`grpc()`] makes one for a generated tonic client.
//! `reqwest` (feature `reqwest`) makes one with the interface of `reqwest::Client`. All three have
//! this stack; a request travels from top to bottom:
//!
//! | layer | settings | set by |
//! |---|---|---|
//! | `GrpcStatusLayer`, [`grpc()`] only | turns errors of the stack into the gRPC status that describes them | |
//! | [`DeadlineLayer`] | 5 s for each call, sent along as `HttpDeadline` says | [`deadline`](ClientBuilder::deadline) |
//! | [`RetryLayer`] | what [`HttpRetry`] calls safe to repeat, three attempts, each of a quarter of the deadline, a budget of 20 % of the calls | [`retry`](ClientBuilder::retry) |
//! | [`BalanceLayer`] | the policy `peak_ewma` | [`balance`](ClientBuilder::balance) |
//! | [`OutlierLayer`] | its defaults, and an endpoint is ejected after one refused connection | [`outlier`](ClientBuilder::outlier) |
//! | [`ConcurrencyLimitLayer`] | at most 256 requests in flight for each endpoint | [`limit`](ClientBuilder::limit) |
//! | [`HttpConnector`] | its defaults, and idle connections are checked, so that dead ones are noticed | `connector` |
//!
//! The deadline ends with the head of the response: a body may take longer.
//!
//! `Debug` prints the layers of a client. For a different stack, put the same layers into a
//! `tower::ServiceBuilder`, in the order of the table.
//!
//! ```
//! use std::time::Duration;
//! use bytes::Bytes;
//! use evenkeel::client::{HttpClient, http};
//! use evenkeel::core::{BoxError, endpoint::Endpoint};
//! use ::http::Request;
//! use http_body_util::Empty;
//! use tower::ServiceExt;
//!
//! # async fn run() -> Result<(), BoxError> {
//! let endpoints: Vec<Endpoint> = vec!["10.0.0.1:8080".parse()?, "10.0.0.2:8080".parse()?];
//! let client: HttpClient<Empty<Bytes>> = http(endpoints).name("orders").deadline(Duration::from_secs(2)).build();
//!
//! let request = Request::get("http://orders.internal/orders").body(Empty::new())?;
//! let response = client.clone().oneshot(request).await?;
//! println!("{}", response.status());
//! # Ok(())
//! # }
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod client;
mod grpc;
mod http;
#[cfg(feature = "reqwest")]
mod reqwest;

#[cfg(feature = "reqwest")]
pub use self::reqwest::{Reqwest, reqwest};
pub use self::{
    builder::{ClientBuilder, Pipeline},
    client::{Client, Protocol, Transport},
    grpc::{Grpc, GrpcClient, GrpcOverHttp, grpc},
    http::{Http, HttpClient, PlainHttp, http},
};

#[cfg(doc)]
use evenkeel_http::{HttpConnector, HttpRetry};
#[cfg(doc)]
use evenkeel_layers::{
    balance::BalanceLayer, concurrency::ConcurrencyLimitLayer, deadline::DeadlineLayer,
    outlier::OutlierLayer, retry::RetryLayer,
};
