//! A real API server over a real etcd, started for a test on free ports.
#![allow(dead_code, reason = "no test needs all of it")]

use std::{path::PathBuf, process::Command, sync::Once};

use evenkeel_discovery::kubernetes::ApiServer;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::servers::{Process, find, free_ports, until};

/// The rights of each token in the API server's file.
const TOKENS: &str = "admin *\nreader shop\nstranger -\n";

pub(crate) struct Cluster {
    pub(crate) etcd: Process,
    pub(crate) server: Process,
    programs: [PathBuf; 3],
    ports: [u16; 3],
    admin: Option<Client>,
    folder: TempDir,
}

/// kube and the discovery leave the choice of cryptography to the program.
pub(crate) fn install_cryptography() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

impl Cluster {
    /// An API server that is ready; none if it or etcd is missing.
    pub(crate) async fn start() -> Option<Self> {
        install_cryptography();
        let programs = [
            find("apiserver", "apiserver")?,
            find("etcd-3.5", "etcd")?,
            find("etcd-3.5", "etcdctl")?,
        ];
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokens"), TOKENS).unwrap();
        let ports = free_ports();
        let etcd = start_etcd(&programs, ports, &folder);
        let server = start_server(&programs, ports, &folder);
        let mut cluster = Self { etcd, server, programs, ports, admin: None, folder };
        cluster.until_ready().await;
        Some(cluster)
    }

    pub(crate) async fn start_server_again(&mut self) {
        self.server = start_server(&self.programs, self.ports, &self.folder);
        self.until_ready().await;
    }

    /// Ends the API server, and lets another one, unknown to the clients, write what follows.
    pub(crate) async fn replace_server(&mut self) -> u16 {
        let port = self.ports[0];
        let [other] = free_ports();
        self.server.kill();
        self.ports[0] = other;
        self.start_server_again().await;
        port
    }

    /// Starts the API server again at its port, over an etcd that has forgotten everything but the
    /// present.
    pub(crate) async fn put_back_server(&mut self, port: u16) {
        self.server.kill();
        self.compact();
        self.ports[0] = port;
        self.start_server_again().await;
    }

    /// Ends both, and starts etcd without data.
    pub(crate) fn forget(&mut self) {
        self.server.kill();
        self.etcd.kill();
        std::fs::remove_dir_all(self.folder.path().join("data")).unwrap();
        self.etcd = start_etcd(&self.programs, self.ports, &self.folder);
    }

    async fn until_ready(&mut self) {
        until("an API server that is ready", || async {
            // The certificate exists once the server listens.
            let Ok(kubeconfig) = Kubeconfig::read_from(self.kubeconfig("admin")) else {
                return false;
            };
            let options = KubeConfigOptions::default();
            let Ok(config) = Config::from_custom_kubeconfig(kubeconfig, &options).await else {
                return false;
            };
            let Ok(client) = Client::try_from(config) else { return false };
            let request = http::Request::get("/readyz").body(vec![]).unwrap();
            client.request_text(request).await.is_ok()
        })
        .await;
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig("admin")).unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        self.admin = Some(Client::try_from(config).unwrap());
    }

    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports[0])
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A kubeconfig with this token.
    pub(crate) fn kubeconfig(&self, token: &str) -> PathBuf {
        self.kubeconfig_at(&self.url(), &json!({ "token": token }))
    }

    /// A kubeconfig for a server at `url` and this user.
    pub(crate) fn kubeconfig_at(&self, url: &str, user: &Value) -> PathBuf {
        let authority = self.path("certificates/apiserver.crt");
        let cluster = json!({ "server": url, "certificate-authority": authority });
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "tests",
            "clusters": [{ "name": "tests", "cluster": cluster }],
            "users": [{ "name": "tests", "user": user }],
            "contexts": [{ "name": "tests", "context": { "cluster": "tests", "user": "tests", "namespace": "shop" } }],
        });
        let port = url.rsplit(':').next().unwrap();
        let name = format!("kubeconfig-{port}-{}", user.to_string().len());
        let path = self.path(&name);
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// Access as a user that may follow services in `shop`, and nothing else.
    pub(crate) fn reader(&self) -> ApiServer {
        ApiServer::kubeconfig(self.kubeconfig("reader"))
    }

    /// A client of kube's own.
    pub(crate) fn client(&self) -> Client {
        self.admin.clone().unwrap()
    }

    /// Writes a slice of `service`.
    pub(crate) async fn put_of(&self, service: &str, name: &str, slice: Value) {
        let mut object = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": name, "labels": { "kubernetes.io/service-name": service } },
            "addressType": "IPv4", "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        });
        object.as_object_mut().unwrap().extend(slice.as_object().unwrap().clone());
        let request = http::Request::put(format!("{SLICES}/{name}"))
            .header("content-type", "application/json")
            .body(object.to_string().into_bytes());
        let _: Value = self.client().request(request.unwrap()).await.unwrap();
    }

    pub(crate) async fn put(&self, name: &str, slice: Value) {
        self.put_of("web", name, slice).await;
    }

    /// Writes a slice with pods that are ready.
    pub(crate) async fn put_pods(&self, name: &str, pods: impl IntoIterator<Item = u32>) {
        let endpoints: Vec<_> = pods.into_iter().map(|pod| ready(pod, true)).collect();
        self.put(name, json!({ "endpoints": endpoints })).await;
    }

    pub(crate) async fn delete(&self, name: &str) {
        let request = http::Request::delete(format!("{SLICES}/{name}")).body(vec![]).unwrap();
        self.client().request_text(request).await.unwrap();
    }

    /// The events of a watch of slices after this version.
    pub(crate) async fn changes_after(&self, version: u64) -> String {
        let path = format!("{SLICES}?watch=true&timeoutSeconds=1&resourceVersion={version}");
        let request = http::Request::get(path).body(vec![]).unwrap();
        self.client().request_text(request).await.unwrap()
    }

    /// The server's own metrics.
    pub(crate) async fn metrics(&self) -> String {
        let request = http::Request::get("/metrics").body(vec![]).unwrap();
        self.client().request_text(request).await.unwrap()
    }

    /// How many watches of slices there are.
    pub(crate) async fn watches(&self) -> f64 {
        let metrics = self.metrics().await;
        let mut lines = metrics.lines().filter(|line| {
            line.starts_with("apiserver_longrunning_requests{")
                && line.contains("resource=\"endpointslices\"")
        });
        lines.next().map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    /// Makes etcd forget everything but the present.
    pub(crate) fn compact(&self) {
        let status: Value =
            serde_json::from_str(&self.control(&["endpoint", "status", "-w", "json"])).unwrap();
        let revision = status[0]["Status"]["header"]["revision"].to_string();
        self.control(&["compact", &revision]);
    }

    fn control(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(&self.programs[2]);
        command.arg(format!("--endpoints=127.0.0.1:{}", self.ports[1]));
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Changes the rights of tokens.
    pub(crate) fn permit(&self, lines: &str) {
        std::fs::write(self.path("tokens"), format!("{TOKENS}{lines}\n")).unwrap();
    }
}

const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices";

/// An endpoint of a pod with a number.
pub(crate) fn ready(pod: u32, is_ready: bool) -> Value {
    json!({
        "addresses": [address(pod)], "conditions": { "ready": is_ready },
        "targetRef": { "kind": "Pod", "name": format!("web-{pod}"), "uid": format!("uid-{pod}") },
    })
}

/// The address of a pod with a number.
pub(crate) fn address(pod: u32) -> String {
    format!("10.0.{}.{}", pod / 200, pod % 200 + 1)
}

fn start_etcd(programs: &[PathBuf; 3], [_, client, peer]: [u16; 3], folder: &TempDir) -> Process {
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    let data = folder.path().join("data");
    let arguments = [
        "--name=tests".to_owned(),
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=tests={peer}"),
        "--log-level=warn".to_owned(),
    ];
    Process::start(Command::new(&programs[1]).args(arguments), &folder.path().join("etcd.log"))
}

fn start_server(programs: &[PathBuf; 3], [port, etcd, _]: [u16; 3], folder: &TempDir) -> Process {
    let mut command = Command::new(&programs[0]);
    command
        .arg(format!("-etcd=http://127.0.0.1:{etcd}"))
        .arg(format!("-port={port}"))
        .arg(format!("-cert-dir={}", folder.path().join("certificates").display()))
        .arg(format!("-tokens={}", folder.path().join("tokens").display()));
    Process::start(&mut command, &folder.path().join("apiserver.log"))
}
