//! A client that follows a service in Kubernetes while its pods join, terminate and end.
//!
//! `cargo run --example kubernetes` starts its own API server, if `.ci/get-servers apiserver
//! etcd-3.5` has installed one. It writes the endpoint slices itself, in place of the controllers.
//! `cargo run --example kubernetes -- k8s://shop/web:http` follows a service in the cluster of the
//! kubeconfig, and prints which endpoints join and leave.
//! `cargo run --example kubernetes -- measure` prints how soon changes arrive, and what 10,000
//! endpoints cost.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use evenkeel::{
    balance::BalanceLayer,
    core::discover::{Discovery, Update},
    discovery::{Kubernetes, kubernetes::ApiServer, targets::discover},
    http::HttpConnector,
};
use futures_util::StreamExt;
use http::Request;
use http_body_util::{BodyExt, Empty};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt};

mod common;
#[path = "common/servers.rs"]
mod servers;

use servers::find_optional;

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    // The program chooses the cryptography.
    rustls::crypto::ring::default_provider().install_default().ok();
    let asked = std::env::args().nth(1);
    if let Some(address) = asked.as_ref().filter(|asked| *asked != "measure") {
        return follow(address).await;
    }
    let Some(cluster) = Cluster::start().await? else {
        let missing = "no API server: `.ci/get-servers apiserver etcd-3.5` gets one, or name a service of yours, \
                       such as k8s://shop/web:http";
        if std::env::var_os("CI").is_some() {
            return Err(missing.into());
        }
        println!("{missing}");
        return Ok(());
    };
    if asked.is_some() {
        return measure(&cluster).await;
    }
    let (one, two) = (common::serve_text("one").await?, common::serve_text("two").await?);
    let ready = json!({ "ready": true, "serving": true, "terminating": false });
    cluster.put(&[(one, &ready), (two, &ready)]).await?;

    let greeter = Kubernetes::new(ApiServer::kubeconfig(cluster.kubeconfig()), "greeter")
        .namespace("shop")
        .port("http");
    let client = BalanceLayer::round_robin(greeter).layer(HttpConnector::new());
    let ask = || async {
        let request = Request::get("/").body(Empty::<Bytes>::new())?;
        let body = client.clone().oneshot(request).await?.into_body().collect().await?;
        Ok::<_, common::BoxError>(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    };
    let (a, b) = (ask().await?, ask().await?);
    println!("answered by {a} and {b}");
    assert_ne!(a, b);

    // The pod of the first endpoint is deleted: it finishes its requests and gets no new ones.
    let terminating = json!({ "ready": false, "serving": true, "terminating": true });
    cluster.put(&[(one, &terminating), (two, &ready)]).await?;
    for _ in 0..40 {
        ask().await?;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("answered by {} and {}, and no request failed", ask().await?, ask().await?);
    assert_eq!((ask().await?, ask().await?), ("two".into(), "two".into()));
    Ok(())
}

/// Prints the changes of a service in an existing cluster.
async fn follow(address: &str) -> Result<(), common::BoxError> {
    let mut watch = discover(address)?.watch();
    while let Some(news) = watch.next().await {
        match news {
            Ok(Update::Set(endpoints)) => {
                println!("{} endpoints", endpoints.len());
                endpoints
                    .iter()
                    .for_each(|e| println!("  {} {:?} {:?}", e.address, e.zone, e.metadata));
            }
            Ok(Update::Insert(e)) => {
                println!("+ {} weight {} {:?}", e.address, e.weight, e.metadata);
            }
            Ok(Update::Remove(address)) => println!("- {address}"),
            Ok(_) => {}
            Err(error) => println!("! {error}"),
        }
    }
    Ok(())
}

/// Measures the time from the begin of the write of a slice until a watch has the change.
#[allow(clippy::disallowed_methods, reason = "an example may look at its watch")]
async fn measure(cluster: &Cluster) -> Result<(), common::BoxError> {
    for (slices, changes) in [(1, 300), (100, 100)] {
        for slice in 0..slices {
            cluster.put_hundred("many", slice, 0).await?;
        }
        let (memory, began) = (resident_kib()?, Instant::now());
        let many =
            Kubernetes::new(ApiServer::kubeconfig(cluster.kubeconfig()), "many").namespace("shop");
        let mut watch = many.watch();
        watch.next().await.ok_or("no end")??;
        println!(
            "{} endpoints: seen after {:.1?} with connecting, {:.1} MiB more",
            slices * 100,
            began.elapsed(),
            f64::from(resident_kib()?.saturating_sub(memory)) / 1_024.0,
        );
        let mut delays = vec![];
        for change in 1..=changes {
            let began = Instant::now();
            // One of the endpoints is in another zone than before.
            let (written, told) =
                tokio::join!(cluster.put_hundred("many", 0, change), watch.next());
            written?;
            told.ok_or("no end")??;
            delays.push(began.elapsed());
        }
        delays.sort();
        let at = |share: usize| delays[(delays.len() * share / 100).min(delays.len() - 1)];
        println!(
            "  {changes} changes, from write to watch: p50 {:.1?}, p99 {:.1?}, worst {:.1?}",
            at(50),
            at(99),
            at(100)
        );
    }
    Ok(())
}

fn resident_kib() -> Result<u32, common::BoxError> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse()?)
}

/// An API server over an etcd. Both keep their data in a folder and end when this is dropped.
struct Cluster {
    folder: tempfile::TempDir,
    _processes: [Process; 2],
    admin: kube::Client,
}

struct Process(Child);

impl Cluster {
    async fn start() -> Result<Option<Self>, common::BoxError> {
        let (Some(server), Some(etcd)) =
            (find_optional("apiserver", "apiserver"), find_optional("etcd-3.5", "etcd"))
        else {
            return Ok(None);
        };
        // All are held at once, so that they differ, and released before the servers take them.
        let held = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0"));
        let mut ports = vec![];
        for listener in &held {
            ports.push(listener.as_ref().map_err(ToString::to_string)?.local_addr()?.port());
        }
        drop(held);
        let folder = tempfile::tempdir()?;
        let (client, peer) =
            (format!("http://127.0.0.1:{}", ports[1]), format!("http://127.0.0.1:{}", ports[2]));
        let etcd = Command::new(etcd)
            .arg(format!("--data-dir={}", folder.path().join("etcd").display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .args([&format!("--initial-cluster=default={peer}"), "--log-level=error"])
            .stderr(Stdio::null())
            .spawn()?;
        let tokens = folder.path().join("tokens");
        std::fs::write(&tokens, "example *")?;
        let server = Command::new(server)
            .arg(format!("-etcd={client}"))
            .arg(format!("-port={}", ports[0]))
            .arg(format!("-cert-dir={}", folder.path().join("certificates").display()))
            .arg(format!("-tokens={}", tokens.display()))
            .stderr(Stdio::null())
            .spawn()?;
        let processes = [Process(server), Process(etcd)];
        let kubeconfig = kubeconfig(folder.path(), ports[0])?;
        for _ in 0..600 {
            if let Some(admin) = connect(&kubeconfig).await {
                return Ok(Some(Self { folder, _processes: processes, admin }));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err("the API server did not start within a minute".into())
    }

    fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Writes what the controllers would write when pods change.
    async fn put(&self, pods: &[(SocketAddr, &Value)]) -> Result<(), common::BoxError> {
        // Pods have their own addresses and share a port. Here it is the other way round, so each
        // has its own slice.
        for (number, (address, conditions)) in pods.iter().enumerate() {
            let endpoints = json!([{ "addresses": [address.ip()], "conditions": conditions }]);
            self.put_slice("greeter", number, address.port(), &endpoints).await?;
        }
        Ok(())
    }

    /// A hundred pods. The first is in a zone with this number.
    async fn put_hundred(
        &self,
        service: &str,
        slice: usize,
        zone: usize,
    ) -> Result<(), common::BoxError> {
        let pod = |pod: usize| {
            json!({
                "addresses": [format!("10.{}.{}.{}", slice / 250, slice % 250, pod + 1)],
                "zone": format!("zone-{}", if pod == 0 { zone } else { 0 }),
                "conditions": { "ready": true, "serving": true, "terminating": false },
                "nodeName": format!("node-{pod}"),
                "targetRef": { "kind": "Pod", "name": format!("{service}-{slice}-{pod}"), "uid": format!("{slice}-{pod}") },
            })
        };
        let endpoints: Vec<_> = (0..100).map(pod).collect();
        self.put_slice(service, slice, 8_080, &endpoints.into()).await
    }

    async fn put_slice(
        &self,
        service: &str,
        number: usize,
        port: u16,
        endpoints: &Value,
    ) -> Result<(), common::BoxError> {
        let name = format!("{service}-{number}");
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": name, "labels": { "kubernetes.io/service-name": service } },
            "addressType": "IPv4", "ports": [{ "name": "http", "port": port, "protocol": "TCP" }],
            "endpoints": endpoints,
        });
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/{name}");
        let request = Request::put(path)
            .header("content-type", "application/json")
            .body(slice.to_string().into_bytes())?;
        self.admin.request_text(request).await?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn kubeconfig(folder: &Path, port: u16) -> Result<PathBuf, common::BoxError> {
    let authority = folder.join("certificates/apiserver.crt");
    let server = format!("https://127.0.0.1:{port}");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "example",
        "clusters": [{ "name": "example", "cluster": { "server": server, "certificate-authority": authority } }],
        "users": [{ "name": "example", "user": { "token": "example" } }],
        "contexts": [{ "name": "example", "context": { "cluster": "example", "user": "example" } }],
    });
    let path = folder.join("kubeconfig");
    std::fs::write(&path, config.to_string())?;
    Ok(path)
}

/// A client, once the server is ready.
async fn connect(kubeconfig: &Path) -> Option<kube::Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).ok()?;
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.ok()?;
    let client = kube::Client::try_from(config).ok()?;
    client.request_text(Request::get("/readyz").body(vec![]).ok()?).await.ok()?;
    Some(client)
}
