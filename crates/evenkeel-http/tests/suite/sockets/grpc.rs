//! A tonic client directly over the stack, written as tonic generates it.

use std::sync::Arc;

use evenkeel_core::{
    endpoint::{Address, Endpoint},
    error::cause,
    node::{Gate, Node},
    retry::Budget,
};
use evenkeel_http::{ConnectError, HttpConnector, HttpLeaf, HttpRetry, ReplayBody, ServedBy};
use evenkeel_layers::{balance::BalanceLayer, outlier::OutlierLayer, retry::RetryLayer};
use hyper::body::Incoming;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::transport::{Channel, Uri};
use tonic::{
    Code, Request, Response, Status, Streaming,
    body::Body,
    client::{Grpc, GrpcService},
    codegen::{Body as HttpBody, Bytes, StdError, http::uri::PathAndQuery},
};
use tonic_prost::ProstCodec;
use tower::{ServiceBuilder, ServiceExt, service_fn};

use crate::sockets::support::{Told, listen, node, serve, stack, told, within};

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Hello {
    #[prost(string, tag = "1")]
    name: String,
}

pub(crate) fn hello(name: impl Into<String>) -> Hello {
    Hello { name: name.into() }
}

/// What tonic generates for a service of two methods.
pub(crate) struct GreeterClient<T> {
    inner: Grpc<T>,
}

impl<T> GreeterClient<T>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    pub(crate) fn new(inner: T) -> Self {
        Self { inner: Grpc::new(inner) }
    }

    async fn ready(&mut self) -> Result<(), Status> {
        // As it is generated: an error of readiness becomes `UNKNOWN`.
        let unknown = |error: StdError| format!("Service was not ready: {error}");
        self.inner.ready().await.map_err(|error| Status::unknown(unknown(error.into())))
    }

    pub(crate) async fn greet(&mut self, request: Hello) -> Result<Response<Hello>, Status> {
        self.ready().await?;
        let path = PathAndQuery::from_static("/greeter.Greeter/Greet");
        self.inner.unary(Request::new(request), path, ProstCodec::default()).await
    }

    pub(crate) async fn chat<S>(
        &mut self,
        requests: S,
    ) -> Result<Response<Streaming<Hello>>, Status>
    where
        S: Stream<Item = Hello> + Send + 'static,
    {
        self.ready().await?;
        let path = PathAndQuery::from_static("/greeter.Greeter/Chat");
        self.inner.streaming(Request::new(requests), path, ProstCodec::default()).await
    }
}

/// Greets, or fails with the status code if its name is a number.
async fn greet(request: Request<Hello>) -> Result<Response<Hello>, Status> {
    match request.get_ref().name.parse::<i32>() {
        Ok(code) => Err(Status::new(Code::from(code), "as you wish")),
        Err(_) => Ok(Response::new(hello(format!("hello {}", request.get_ref().name)))),
    }
}

/// Greets each name as it comes, and fails in the trailers when a number comes.
async fn chat(
    request: Request<Streaming<Hello>>,
) -> Result<Response<impl Stream<Item = Result<Hello, Status>> + Send>, Status> {
    let answers = request
        .into_inner()
        .then(|message| async { greet(Request::new(message?)).await.map(Response::into_inner) });
    Ok(Response::new(answers))
}

pub(crate) async fn answer(request: http::Request<Incoming>) -> http::Response<Body> {
    let mut server = tonic::server::Grpc::new(ProstCodec::default());
    match request.uri().path() {
        "/greeter.Greeter/Greet" => server.unary(service_fn(greet), request).await,
        "/greeter.Greeter/Chat" => server.streaming(service_fn(chat), request).await,
        _ => Status::unimplemented("no such method").into_http(),
    }
}

fn connector() -> HttpConnector<Body> {
    HttpConnector::grpc()
}

#[tokio::test]
async fn a_unary_call_is_answered() {
    let (node, _) = node(serve(answer).await);
    let mut client = GreeterClient::new(stack(&connector(), &node));

    let response = within(client.greet(hello("you"))).await.unwrap();

    assert_eq!(response.into_inner(), hello("hello you"));
    assert_eq!(node.in_flight(), 0);
    assert_eq!(told(&node), Told::Latency);
}

#[tokio::test]
async fn a_stream_runs_in_both_directions_at_once() {
    let (node, _) = node(serve(answer).await);
    let mut client = GreeterClient::new(stack(&connector(), &node));
    let (requests, receiver) = tokio::sync::mpsc::channel(1);
    let mut answers =
        within(client.chat(ReceiverStream::new(receiver))).await.unwrap().into_inner();

    for name in ["a", "b", "c"] {
        // Each answer is read before the next question is asked.
        requests.send(hello(name)).await.unwrap();
        let answer = within(answers.message()).await.unwrap().unwrap();
        assert_eq!(answer, hello(format!("hello {name}")));
        assert_eq!(node.in_flight(), 1);
    }
    drop(requests);

    assert_eq!(within(answers.message()).await.unwrap(), None);
    assert_eq!(node.in_flight(), 0);
    assert_eq!(told(&node), Told::Latency);
}

#[tokio::test]
async fn a_status_of_trailers_alone_decides() {
    for (code, expected) in [
        (Code::NotFound, Told::Latency),
        (Code::Unavailable, Told::FailureOrThrottled),
        (Code::ResourceExhausted, Told::FailureOrThrottled),
        (Code::Unimplemented, Told::Nothing),
    ] {
        let (node, _) = node(serve(answer).await);
        let mut client = GreeterClient::new(stack(&connector(), &node));

        let status = within(client.greet(hello((code as i32).to_string()))).await.unwrap_err();

        assert_eq!(status.code(), code);
        assert_eq!(told(&node), expected, "{code:?}");
        assert_eq!(node.in_flight(), 0);
    }
}

#[tokio::test]
async fn a_status_after_the_messages_decides() {
    let (node, _) = node(serve(answer).await);
    let mut client = GreeterClient::new(stack(&connector(), &node));
    let unavailable = (Code::Unavailable as i32).to_string();
    let requests = tokio_stream::iter([hello("a"), hello(unavailable)]);

    let mut answers = within(client.chat(requests)).await.unwrap().into_inner();
    assert_eq!(within(answers.message()).await.unwrap(), Some(hello("hello a")));
    let status = within(answers.message()).await.unwrap_err();

    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(told(&node), Told::FailureOrThrottled);
    assert_eq!(node.in_flight(), 0);
}

#[tokio::test]
async fn a_stream_that_the_caller_drops_was_cancelled() {
    let (node, _) = node(serve(answer).await);
    let mut client = GreeterClient::new(stack(&connector(), &node));
    let (requests, receiver) = tokio::sync::mpsc::channel(1);
    requests.send(hello("a")).await.unwrap();
    let mut answers =
        within(client.chat(ReceiverStream::new(receiver))).await.unwrap().into_inner();
    within(answers.message()).await.unwrap().unwrap();

    drop(answers);

    assert_eq!(node.in_flight(), 0);
    assert_eq!(told(&node), Told::Nothing);
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_is_a_status_with_its_cause() {
    let (listener, address) = listen().await;
    drop(listener);
    let (node, _) = node(address);
    let mut client = GreeterClient::new(stack(&connector(), &node));

    let status = within(client.greet(hello("you"))).await.unwrap_err();

    assert!(cause::<ConnectError>(&status).is_some(), "{status:?}");
}

#[tokio::test]
async fn an_endpoint_may_be_named() {
    let port = serve(answer).await.port().unwrap();
    let name: Address = format!("localhost:{port}").parse().unwrap();
    let (node, _) = node(name);
    let mut client = GreeterClient::new(stack(&connector(), &node));

    assert!(within(client.greet(hello("you"))).await.is_ok());
}

fn channel(node: &Arc<Node>) -> Channel {
    Channel::builder(format!("http://{}", node.address()).parse::<Uri>().unwrap()).connect_lazy()
}

#[tokio::test]
async fn a_channel_of_tonic_below_a_balancer_tells_health_the_status() {
    let unavailable =
        |_: http::Request<Incoming>| async { Status::unavailable("always").into_http::<Body>() };
    let endpoints = [serve(unavailable).await, serve(answer).await].map(Endpoint::new);
    let stack = ServiceBuilder::new()
        .layer(BalanceLayer::round_robin(endpoints.to_vec()))
        .layer(OutlierLayer::new())
        .service(HttpLeaf::new(channel));
    let mut client = GreeterClient::new(stack.clone());

    for _ in 0..12 {
        let _ = within(client.greet(hello("you"))).await;
    }

    let ejected =
        stack.nodes().iter().map(|node| node.is_closed_by(Gate::Ejected)).collect::<Vec<_>>();
    assert_eq!(ejected, [true, false]);
}

#[tokio::test]
async fn a_status_in_the_trailers_of_a_channel_decides() {
    let (node, _) = node(serve(answer).await);
    let mut client = GreeterClient::new(stack(&HttpLeaf::new(channel), &node));
    let requests = tokio_stream::iter([hello("a"), hello((Code::Unavailable as i32).to_string())]);

    let response = within(client.chat(requests)).await.unwrap();
    assert_eq!(response.extensions().get::<ServedBy>().unwrap().address(), node.address());
    let mut answers = response.into_inner();
    assert_eq!(within(answers.message()).await.unwrap(), Some(hello("hello a")));
    assert_eq!(node.in_flight(), 1);
    within(answers.message()).await.unwrap_err();

    assert_eq!(told(&node), Told::FailureOrThrottled);
    assert_eq!(node.in_flight(), 0);
}

#[tokio::test]
async fn retries_stand_above_channels_of_tonic() {
    let (listener, gone) = listen().await;
    drop(listener);
    let endpoints = [gone, serve(answer).await].map(Endpoint::new);
    let leaf = HttpLeaf::new(|node: &Arc<Node>| {
        channel(node).map_request(|request: http::Request<ReplayBody<Body>>| request.map(Body::new))
    });
    let stack = ServiceBuilder::new()
        .layer(RetryLayer::new(Budget::default()).rules(HttpRetry::new()))
        .layer(BalanceLayer::round_robin(endpoints.to_vec()))
        .service(leaf);
    let mut client = GreeterClient::new(stack);

    for _ in 0..2 {
        let greeting = within(client.greet(hello("you"))).await.unwrap().into_inner();
        assert_eq!(greeting, hello("hello you"));
    }
}
