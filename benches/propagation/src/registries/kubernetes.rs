//! Kubernetes: the API server over etcd. The rig writes endpoint slices, as the controllers do.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use futures_util::{FutureExt, future::BoxFuture};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

use super::{Registry, Running, SERVICE, etcd};
use crate::{
    BoxError,
    backend::Register,
    event::Event,
    servers::{Server, find, free_ports, local, missing, until},
};

/// The token that may do everything, and the token that may only follow services in the namespace.
const TOKENS: &str = "admin *\nreader shop\n";

const NAMESPACE: &str = "shop";

/// How many endpoints the controllers put into a slice.
const MAX_SLICE: usize = 100;

#[derive(Debug)]
pub(super) struct Kubernetes;

impl Registry for Kubernetes {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn about(&self) -> &'static str {
        "Kubernetes' API server over etcd; endpoint slices by list and watch, written by the rig"
    }

    fn missing(&self) -> Option<String> {
        missing("apiserver", "apiserver").or(missing(etcd::VERSION, "etcd"))
    }

    fn supports(&self, event: Event) -> bool {
        // Kubernetes has no weights, kubelets detect dead endpoints, and leaders are those of etcd.
        !matches!(event, Event::Weight | Event::Crash | Event::Leader)
    }

    fn start<'a>(&'a self, folder: &'a Path) -> BoxFuture<'a, Result<Box<dyn Running>, BoxError>> {
        start(folder).map(|cluster| Ok(Box::new(cluster?) as Box<dyn Running>)).boxed()
    }
}

async fn start(folder: &Path) -> Result<Cluster, BoxError> {
    let program = find("apiserver", "apiserver").ok_or("the API server is missing")?;
    let [port, client, peer] = free_ports()?;
    let etcd = etcd::launch(folder, (client, peer), &etcd::initial(&[(client, peer)]))?;
    std::fs::write(folder.join("tokens"), TOKENS)?;
    let arguments = [
        format!("-etcd=http://{}", local(client)),
        format!("-port={port}"),
        format!("-cert-dir={}", folder.join("certificates").display()),
        format!("-tokens={}", folder.join("tokens").display()),
    ];
    let server = Server::start(&program, arguments, folder.join("apiserver.log"))?;
    let folder = folder.to_owned();
    let mut cluster =
        Cluster { etcd, server, port, folder, client: None, slices: vec![], endpoint_port: 0 };
    cluster.until_ready().await?;
    cluster.client = Some(cluster.connect().await?);
    Ok(cluster)
}

struct Cluster {
    etcd: Server,
    server: Server,
    port: u16,
    folder: PathBuf,
    client: Option<Client>,
    /// The endpoints of each slice.
    slices: Vec<Vec<SocketAddr>>,
    endpoint_port: u16,
}

impl Cluster {
    /// A kubeconfig for this token and this server.
    fn kubeconfig(&self, server: SocketAddr, token: &str) -> Result<PathBuf, BoxError> {
        let authority = self.folder.join("certificates/apiserver.crt");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "rig",
            "clusters": [{ "name": "rig", "cluster": {
                "server": format!("https://{server}"), "certificate-authority": authority } }],
            "users": [{ "name": "rig", "user": { "token": token } }],
            "contexts": [{ "name": "rig", "context": {
                "cluster": "rig", "user": "rig", "namespace": NAMESPACE } }],
        });
        let path = self.folder.join(format!("kubeconfig-{token}-{}", server.port()));
        std::fs::write(&path, config.to_string())?;
        Ok(path)
    }

    async fn connect(&self) -> Result<Client, BoxError> {
        let path = self.kubeconfig(local(self.port), "admin")?;
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options);
        Ok(Client::try_from(config.await?)?)
    }

    async fn is_ready(&self) -> bool {
        let asked = async {
            let ready = http::Request::get("/readyz").body(vec![])?;
            Ok::<_, BoxError>(self.connect().await?.request_text(ready).await?)
        };
        asked.await.is_ok()
    }

    /// Writes a slice in its current state.
    async fn write(&self, slice: usize) -> Result<(), BoxError> {
        let endpoint = |address: &SocketAddr| {
            json!({ "addresses": [address.ip().to_string()], "conditions": { "ready": true },
                "targetRef": { "kind": "Pod", "name": format!("pod-{}", address.ip()),
                    "uid": address.to_string() } })
        };
        let endpoints: Vec<Value> = self.slices[slice].iter().map(endpoint).collect();
        let name = format!("{SERVICE}-{slice}");
        let object = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": name, "labels": { "kubernetes.io/service-name": SERVICE } },
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{ "name": "http", "port": self.endpoint_port, "protocol": "TCP" }],
        });
        let path =
            format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices/{name}");
        let request = http::Request::put(path).header("content-type", "application/json");
        let client = self.client.clone().ok_or("the API server is not ready")?;
        let _: Value = client.request(request.body(object.to_string().into_bytes())?).await?;
        Ok(())
    }
}

impl Running for Cluster {
    fn members(&self) -> Vec<SocketAddr> {
        vec![local(self.port)]
    }

    fn target(&self, members: &[SocketAddr], _: u16) -> Result<String, BoxError> {
        let path = self.kubeconfig(members[0], "reader")?;
        Ok(format!("k8s://{NAMESPACE}/{SERVICE}:http?kubeconfig={}", path.display()))
    }

    fn register(&self) -> Option<Register> {
        None
    }

    fn insert<'a>(&'a mut self, many: &'a [SocketAddr]) -> BoxFuture<'a, Result<(), BoxError>> {
        async move {
            let mut changed = Vec::new();
            for address in many {
                self.endpoint_port = address.port();
                if self.slices.last().is_none_or(|slice| MAX_SLICE <= slice.len()) {
                    self.slices.push(vec![]);
                }
                let last = self.slices.len() - 1;
                self.slices[last].push(*address);
                if changed.last() != Some(&last) {
                    changed.push(last);
                }
            }
            for slice in changed {
                self.write(slice).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn remove(&mut self, one: SocketAddr) -> BoxFuture<'_, Result<(), BoxError>> {
        async move {
            let slice = self.slices.iter().position(|slice| slice.contains(&one));
            let slice = slice.ok_or("it is in no slice")?;
            self.slices[slice].retain(|other| *other != one);
            self.write(slice).await
        }
        .boxed()
    }

    fn restart(&mut self) -> BoxFuture<'_, Result<(), BoxError>> {
        async move {
            self.server.kill().await?;
            self.etcd.kill().await?;
            self.etcd.start_again()?;
            self.server.start_again()
        }
        .boxed()
    }

    fn pause(&mut self) -> Result<(), BoxError> {
        self.etcd.pause()?;
        self.server.pause()
    }

    fn resume(&mut self) -> Result<(), BoxError> {
        self.etcd.resume()?;
        self.server.resume()
    }

    fn until_ready(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        until("the API server", || self.is_ready()).boxed()
    }
}
