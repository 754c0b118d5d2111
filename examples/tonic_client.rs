//! A generated tonic client directly over a balanced stack: HTTP/2, unary and streaming in both
//! directions. Calls are balanced one by one over two servers, and errors of the stack become the
//! right status.

use evenkeel::{
    balance::BalanceLayer,
    core::retry::Budget,
    deadline::DeadlineLayer,
    discovery::Fixed,
    http::{GrpcStatusLayer, HttpConnector, HttpDeadline, HttpRetry},
    retry::RetryLayer,
};
use futures_util::{Stream, StreamExt, stream};
use std::{collections::BTreeSet, net::SocketAddr, pin::Pin, time::Duration};
use tonic::{Code, Request, Response, Status, Streaming, codegen::InterceptedService};
use tower::ServiceBuilder;

mod common;

/// Generated from `greeter/greeter.proto`.
#[allow(clippy::all, missing_docs, unreachable_pub, reason = "generated")]
mod greeter {
    include!("greeter/greeter.v1.rs");
}

use greeter::{Greeting, Name, greeter_client::GreeterClient, greeter_server};

struct Greeter(&'static str);

impl Greeter {
    fn greeting(&self, name: &Name) -> Greeting {
        Greeting { text: format!("{} greets {}", self.0, name.name) }
    }
}

#[tonic::async_trait]
impl greeter_server::Greeter for Greeter {
    type GreetAllStream = Pin<Box<dyn Stream<Item = Result<Greeting, Status>> + Send>>;

    async fn greet(&self, name: Request<Name>) -> Result<Response<Greeting>, Status> {
        Ok(Response::new(self.greeting(name.get_ref())))
    }

    async fn greet_all(
        &self,
        names: Request<Streaming<Name>>,
    ) -> Result<Response<Self::GreetAllStream>, Status> {
        let greeter = Self(self.0);
        let greetings = names.into_inner().map(move |name| Ok(greeter.greeting(&name?)));
        Ok(Response::new(Box::pin(greetings)))
    }
}

/// A gRPC server, served by axum like any other route.
async fn serve(name: &'static str) -> Result<SocketAddr, common::BoxError> {
    let greeter = greeter_server::GreeterServer::new(Greeter(name));
    common::serve(axum::Router::new().route_service("/greeter.v1.Greeter/{method}", greeter)).await
}

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let servers = [serve("Ann").await?, serve("Ben").await?];

    let stack = |endpoints: Fixed| {
        ServiceBuilder::new()
            .layer(GrpcStatusLayer::new()) // errors of the stack become a status
            .layer(DeadlineLayer::new(Duration::from_secs(2)).carry(HttpDeadline))
            .layer(RetryLayer::new(Budget::share(20.0)).rules(HttpRetry::grpc()))
            .layer(BalanceLayer::round_robin(endpoints))
            .service(HttpConnector::grpc().authority("greeter.internal"))
    };
    let mut client = GreeterClient::new(stack(Fixed::new(servers)));

    let mut greeters = BTreeSet::new();
    for _ in 0..2 {
        let greeting = client.greet(Name { name: "you".into() }).await?.into_inner();
        greeters.insert(greeting.text);
    }
    println!("{greeters:?}");
    assert_eq!(greeters.len(), 2, "both servers answered");

    let names = stream::iter(["Cem", "Dia", "Eva"]).map(|name| Name { name: name.into() });
    let mut greetings = client.greet_all(names).await?.into_inner();
    let mut count = 0;
    while let Some(greeting) = greetings.next().await {
        println!("{}", greeting?.text);
        count += 1;
    }
    assert_eq!(count, 3, "every name was greeted");

    let empty = stack(Fixed::new(Vec::<SocketAddr>::new()));
    let agrees = |request: Request<()>| Ok(request);
    let mut client = GreeterClient::new(InterceptedService::new(empty, agrees));
    let status = client.greet(Name { name: "you".into() }).await.expect_err("there is no endpoint");
    println!("{:?}: {}", status.code(), status.message());
    assert_eq!(status.code(), Code::DeadlineExceeded);
    Ok(())
}
