//! A tonic server that registers itself in Consul, changes its weight while it runs, and leaves.
//!
//! Starts its own agent, from the folder of `.ci/get-servers` or from PATH, if one is installed.

use std::{collections::BTreeMap, pin::Pin, time::Duration};

use evenkeel::{
    balance::BalanceLayer,
    discovery::{
        Consul,
        consul::Agents,
        register::{ConsulRegistry, Entry, RegisteredHandle, Registration},
    },
    http::HttpConnector,
};
use futures_util::{Stream, StreamExt};
use tokio::{net::TcpListener, sync::oneshot};
use tonic::{Request, Response, Status, Streaming, transport::server::TcpIncoming};
use tower::ServiceBuilder;

mod common;
#[path = "common/servers.rs"]
mod servers;

/// Generated from `greeter/greeter.proto`.
#[allow(clippy::all, missing_docs, unreachable_pub, reason = "generated")]
mod greeter {
    include!("greeter/greeter.v1.rs");
}

use common::BoxError;
use greeter::{Greeting, Name, greeter_client::GreeterClient, greeter_server};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let Some(consul) = servers::Consul::start()? else { return Ok(()) };
    let agents = Agents::at([&*consul.url])?;
    let (stop, stopped) = oneshot::channel::<()>();
    let (_, ann) = serve("Ann", agents.clone(), async { drop(stopped.await) }).await?;
    let (ben, _) = serve("Ben", agents.clone(), std::future::pending()).await?;

    let stack = ServiceBuilder::new()
        .layer(
            BalanceLayer::weighted_round_robin(Consul::new(agents, "greeter"))
                .max_wait(Duration::from_secs(10)),
        )
        .service(HttpConnector::grpc().authority("greeter.internal"));
    let client = GreeterClient::new(stack);
    let ask = |times: u32| {
        let mut client = client.clone();
        async move {
            let mut counts = BTreeMap::new();
            for _ in 0..times {
                let greeting = client.greet(Name { name: "you".into() }).await?.into_inner();
                *counts.entry(greeting.text).or_insert(0) += 1;
            }
            Ok::<_, BoxError>(counts)
        }
    };
    while ask(2).await?.len() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("at first {:?}", ask(12).await?);

    // The weight changes while the server runs, without a new connection.
    ben.weight(3);
    while ask(4).await?.get("Ben greets you") != Some(&3) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("and with three times the weight {:?}", ask(12).await?);

    drop(stop);
    ann.await??;
    let after = ask(12).await?;
    println!("Ann has left: {after:?}");
    assert_eq!(after.len(), 1);
    Ok(())
}

/// A server that leaves when `stop` resolves. Returns the handle of its entry, and a future that
/// ends with the server.
async fn serve(
    name: &'static str,
    agents: Agents,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(RegisteredHandle, Served), BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;

    // The two additions: the registration, and the future that a graceful shutdown waits for.
    let entry = Entry::new("greeter", listener.local_addr()?.into()).metadata("speaks", "grpc");
    let registered = Registration::new(ConsulRegistry::new(agents), entry).start();

    let handle = registered.handle();
    let greeter = greeter_server::GreeterServer::new(Greeter(name));
    let server = tonic::transport::Server::builder()
        .add_service(greeter)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener), registered.leave_on(stop));
    Ok((handle, tokio::spawn(server)))
}

type Served = tokio::task::JoinHandle<Result<(), tonic::transport::Error>>;

struct Greeter(&'static str);

#[tonic::async_trait]
impl greeter_server::Greeter for Greeter {
    type GreetAllStream = Pin<Box<dyn Stream<Item = Result<Greeting, Status>> + Send>>;

    async fn greet(&self, name: Request<Name>) -> Result<Response<Greeting>, Status> {
        let text = format!("{} greets {}", self.0, name.get_ref().name);
        Ok(Response::new(Greeting { text }))
    }

    async fn greet_all(
        &self,
        names: Request<Streaming<Name>>,
    ) -> Result<Response<Self::GreetAllStream>, Status> {
        let own = self.0;
        let greeting = move |name: Name| Greeting { text: format!("{own} greets {}", name.name) };
        let greetings = names.into_inner().map(move |name| Ok(greeting(name?)));
        Ok(Response::new(Box::pin(greetings)))
    }
}
