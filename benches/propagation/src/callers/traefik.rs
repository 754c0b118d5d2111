//! Traefik with its consulCatalog provider, everything else by default. A plain client calls
//! through it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use evenkeel_rig::{
    clock::Origin,
    load::{Client, Load},
};
use futures_util::{FutureExt, future::BoxFuture};
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client as HyperClient, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use super::{Caller, Calling, Change, Seen, ours::summarize};
use crate::{
    BoxError,
    event::Event,
    moment::Moment,
    options::Options,
    scene::Scene,
    servers::{Server, find, free_ports, local, missing, until},
};

#[derive(Debug)]
pub(crate) struct Traefik;

impl Caller for Traefik {
    fn name(&self) -> &'static str {
        "traefik"
    }

    fn about(&self) -> &'static str {
        "Traefik 3.7, consulCatalog by its defaults (asks every 15 s); a plain client through it"
    }

    fn missing(&self) -> Option<String> {
        missing("traefik", "traefik")
    }

    fn reads(&self, registry: &str, event: Event) -> bool {
        registry == "consul" && matches!(event, Event::Join | Event::Leave | Event::Crash)
    }

    fn tags(&self) -> Vec<String> {
        vec!["traefik.http.routers.web.rule=PathPrefix(`/`)".to_owned()]
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(28)
    }

    fn start<'a>(
        &'a self,
        scene: &'a Scene,
        options: &'a Options,
        seed: u64,
    ) -> BoxFuture<'a, Result<Box<dyn Calling>, BoxError>> {
        async move {
            let program = find("traefik", "traefik").ok_or("traefik is missing")?;
            let consul = scene.members.first().ok_or("there is no agent to ask")?;
            let [port] = free_ports()?;
            let arguments = [
                format!("--entrypoints.web.address={}", local(port)),
                "--providers.consulcatalog=true".to_owned(),
                format!("--providers.consulcatalog.endpoint.address={consul}"),
                "--global.checknewversion=false".to_owned(),
                "--global.sendanonymoususage=false".to_owned(),
            ];
            let server = Server::start(&program, arguments, scene.folder.join("traefik.log"))?;
            let plain = plain();
            until("Traefik answers", || async {
                get(plain.clone(), local(port)).await.is_ok_and(|status| status == 200)
            })
            .await?;
            let client: Client = Arc::new(move |_| get(plain.clone(), local(port)).boxed());
            let (origin, began) = (Origin::now(), Moment::now());
            let load = Load::start(client, options.rate, origin, seed);
            Ok(Box::new(Through { _server: server, load, began }) as Box<dyn Calling>)
        }
        .boxed()
    }
}

type Plain = HyperClient<HttpConnector, Empty<Bytes>>;

fn plain() -> Plain {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let mut builder = HyperClient::builder(TokioExecutor::new());
    builder.timer(TokioTimer::new()).pool_timer(TokioTimer::new()).build(connector)
}

async fn get(client: Plain, address: SocketAddr) -> Result<u16, BoxError> {
    let request = Request::get(format!("http://{address}/")).body(Empty::new())?;
    let response = client.request(request).await?;
    let status = response.status().as_u16();
    response.into_body().collect().await?;
    Ok(status)
}

struct Through {
    _server: Server,
    load: Load,
    began: Moment,
}

impl Calling for Through {
    fn until<'a>(&'a mut self, _: Change, _: Duration) -> BoxFuture<'a, Option<Moment>> {
        std::future::ready(None).boxed()
    }

    fn process(&self) -> Option<u32> {
        None
    }

    fn end(self: Box<Self>) -> BoxFuture<'static, Result<Seen, BoxError>> {
        async move { Ok(summarize(&self.load.stop().await?, self.began)) }.boxed()
    }
}
