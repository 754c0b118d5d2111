//! Unary gRPC: a short text, and the same text back.

use std::{convert::Infallible, net::SocketAddr};

use evenkeel_core::{BoxError, endpoint::Endpoint};
use evenkeel_http::HttpConnector;
use evenkeel_layers::balance::BalanceLayer;
use http::uri::PathAndQuery;
use hyper::body::{Body, Incoming};
use tonic::{
    Status,
    client::{Grpc, GrpcService},
    transport::{Channel, Endpoint as Server},
};
use tonic_prost::ProstCodec;
use tower::{ServiceBuilder, service_fn};

use super::serve::{CONNECTION_WINDOW, STREAM_WINDOW};
use crate::contender::{Contender, Entry, Work};

/// The message in both directions: `message Echo { string text = 1; }`.
#[derive(Clone, PartialEq, prost::Message)]
struct Echo {
    #[prost(string, tag = "1")]
    text: String,
}

/// A plain channel and our balancer to the same server, then tonic's balancer and ours over all.
pub(super) fn entries(servers: &[SocketAddr]) -> [Entry; 4] {
    let one = servers[0];
    let (all, all_again) = (servers.to_vec(), servers.to_vec());
    [
        Entry::new("tonic channel, 1 server", move |_| Caller::new(server(one).connect_lazy())),
        Entry::new("balanced, p2c, 1 server", move |_| balanced(&[one])),
        Entry::new("tonic balance_list, 3 servers", move |_| {
            Caller::new(Channel::balance_list(all.iter().copied().map(server)))
        }),
        Entry::new("balanced, p2c, 3 servers", move |_| balanced(&all_again)),
    ]
}

fn server(address: SocketAddr) -> Server {
    Server::from_shared(format!("http://{address}"))
        .expect("a URI")
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
}

fn balanced(servers: &[SocketAddr]) -> impl Contender + use<> {
    let endpoints: Vec<Endpoint> = servers.iter().copied().map(Endpoint::from).collect();
    let connector = HttpConnector::grpc()
        .authority("bench.internal")
        .http2_windows(STREAM_WINDOW, CONNECTION_WINDOW);
    Caller::new(ServiceBuilder::new().layer(BalanceLayer::p2c(endpoints)).service(connector))
}

/// Calls as a generated client does.
struct Caller<S>(Grpc<S>);

impl<S> Caller<S> {
    fn new(service: S) -> Self {
        Self(Grpc::new(service))
    }
}

impl<S> Contender for Caller<S>
where
    S: GrpcService<tonic::body::Body, Future: Send> + Clone + Send + Sync + 'static,
    S::ResponseBody: Body<Data: Send, Error: Into<BoxError> + Send> + Send + 'static,
{
    fn work(&self, requests: u64) -> Work {
        let mut client = self.0.clone();
        Box::pin(async move {
            for _ in 0..requests {
                client.ready().await.map_err(Into::into).expect("a server is ready");
                let request = tonic::Request::new(Echo { text: "Hello, world!".to_owned() });
                let path = PathAndQuery::from_static("/bench.Echo/Echo");
                let answer: Result<tonic::Response<Echo>, _> =
                    client.unary(request, path, ProstCodec::default()).await;
                assert_eq!(answer.expect("every call is answered").into_inner().text.len(), 13);
            }
        })
    }
}

/// The answer of the servers.
pub(super) async fn answer(
    request: http::Request<Incoming>,
) -> Result<http::Response<tonic::body::Body>, Infallible> {
    let echo = service_fn(|request: tonic::Request<Echo>| async {
        Ok::<_, Status>(tonic::Response::new(request.into_inner()))
    });
    let codec = ProstCodec::<Echo, Echo>::default();
    Ok(tonic::server::Grpc::new(codec).unary(echo, request).await)
}
