//! tonic's balancer over gRPC, with its defaults.

use std::{net::SocketAddr, sync::Arc};

use evenkeel_rig::load::Client;
use futures_util::{FutureExt, future::BoxFuture};
use http::uri::PathAndQuery;
use tokio::sync::mpsc::Sender;
use tonic::{
    Code,
    client::Grpc,
    transport::{Channel, Endpoint, channel::Change},
};
use tonic_prost::ProstCodec;

use super::{Announce, Contestant, Running};
use crate::{
    BoxError,
    fault::Fault,
    scene::{ENDPOINTS, Protocol, Scene},
};

#[derive(Debug)]
pub(crate) struct Tonic;

impl Contestant for Tonic {
    fn name(&self) -> &'static str {
        "tonic"
    }

    fn about(&self) -> &'static str {
        "tonic: Channel::balance_channel, gRPC over HTTP/2; informed of leavers"
    }

    fn protocol(&self, _: Fault) -> Protocol {
        Protocol::Http2
    }

    fn unable(&self, fault: Fault) -> Option<&'static str> {
        let is_http1 = matches!(fault, Fault::SilentNew | Fault::SilentHttp1);
        is_http1.then_some("speaks HTTP/2 only")
    }

    fn start<'a>(&'a self, scene: &'a Scene) -> BoxFuture<'a, Result<Running, BoxError>> {
        async move {
            let (channel, changes) = Channel::balance_channel(64);
            let mut announce = Announced { changes, addresses: scene.addresses() };
            for endpoint in 0..ENDPOINTS {
                announce.insert(endpoint)?;
            }
            let client: Client = Arc::new(move |_| call(channel.clone()).boxed());
            Ok(Running { client, announce: Box::new(announce), proxy: None })
        }
        .boxed()
    }
}

async fn call(channel: Channel) -> Result<u16, BoxError> {
    let mut client = Grpc::new(channel);
    client.ready().await?;
    let path = PathAndQuery::from_static("/league.Endpoint/Get");
    let answer: Result<tonic::Response<()>, _> =
        client.unary(tonic::Request::new(()), path, ProstCodec::default()).await;
    match answer {
        Ok(_) => Ok(200),
        Err(status) if status.code() == Code::Ok => Ok(200),
        Err(status) => Err(status.into()),
    }
}

struct Announced {
    changes: Sender<Change<usize, Endpoint>>,
    addresses: [SocketAddr; ENDPOINTS],
}

impl Announce for Announced {
    fn remove(&mut self, endpoint: usize) -> Result<(), BoxError> {
        Ok(self.changes.try_send(Change::Remove(endpoint))?)
    }

    fn insert(&mut self, endpoint: usize) -> Result<(), BoxError> {
        let address = self.addresses[endpoint];
        let endpoint_of = Endpoint::from_shared(format!("http://{address}"))?;
        Ok(self.changes.try_send(Change::Insert(endpoint, endpoint_of))?)
    }
}
