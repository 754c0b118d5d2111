//! The whole kube-apiserver with the controller that writes the slices.
//!
//! It refuses loopback addresses in slices, so the endpoints followed here are not called.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use evenkeel_discovery::kubernetes::ApiServer;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use needs::needs;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

use crate::kubernetes::{
    real::install_cryptography,
    servers::{Process, find, free_ports, until},
    watching::Watching,
    web,
};

const TOKEN: &str = "token";

/// A control plane without nodes: the pods do not run, so the test sets their state.
struct ControlPlane {
    folder: TempDir,
    port: u16,
    _processes: Vec<Process>,
    // Several at once would take longer than the timeouts on a machine with two cores.
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::const_new(());

impl ControlPlane {
    /// None if it was not built, which `.ci/get-servers kube-1.36` does.
    async fn start() -> Option<Self> {
        install_cryptography();
        let server = find("kube-1.36", "kube-apiserver")?;
        let controllers = find("kube-1.36", "kube-controller-manager")?;
        let turn = TURN.lock().await;
        let folder = tempfile::tempdir().unwrap();
        let [port, client, peer, controllers_port] = free_ports();
        make_keys(folder.path());

        let url = |port| format!("http://127.0.0.1:{port}");
        let mut etcd = Command::new(find("etcd-3.6", "etcd")?);
        etcd.args(["--name=tests", "--log-level=warn", "--data-dir"])
            .arg(folder.path().join("data"));
        etcd.args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)]);
        etcd.args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)]);
        etcd.args(["--initial-cluster", &format!("tests={}", url(peer))]);

        let at = |name: &str| folder.path().join(name).display().to_string();
        let mut server = Command::new(server);
        server.args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"]);
        server.args(["--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.96.0.0/16"]);
        server.args(["--service-account-issuer=https://kubernetes.default.svc"]);
        server.args(["--authorization-mode=AlwaysAllow"]);
        server.args(["--disable-admission-plugins=ServiceAccount"]);
        server.arg(format!("--etcd-servers={}", url(client)));
        server.arg(format!("--secure-port={port}"));
        server.arg(format!("--cert-dir={}", at("certificates")));
        server.arg(format!("--service-account-key-file={}", at("key.pub")));
        server.arg(format!("--service-account-signing-key-file={}", at("key")));
        server.arg(format!("--token-auth-file={}", at("tokens")));

        let mut processes = vec![Process::start(&mut etcd, &folder.path().join("etcd.log"))];
        processes.push(Process::start(&mut server, &folder.path().join("server.log")));
        let mut plane = Self { folder, port, _processes: processes, _turn: turn };
        until("a kube-apiserver that is ready", || async {
            match plane.client().await {
                Some(client) => {
                    let request = http::Request::get("/readyz").body(vec![]).unwrap();
                    client.request_text(request).await.is_ok()
                }
                None => false,
            }
        })
        .await;

        let mut controllers = Command::new(controllers);
        controllers.arg("--leader-elect=false");
        controllers.args(["--controllers=endpointslice-controller", "--bind-address=127.0.0.1"]);
        controllers.arg(format!("--secure-port={controllers_port}"));
        let certificates = plane.folder.path().join("controllers");
        controllers.arg(format!("--cert-dir={}", certificates.display()));
        controllers.arg(format!("--kubeconfig={}", plane.kubeconfig().display()));
        let log = plane.folder.path().join("controllers.log");
        plane._processes.push(Process::start(&mut controllers, &log));
        Some(plane)
    }

    fn kubeconfig(&self) -> PathBuf {
        let authority = self.folder.path().join("certificates/apiserver.crt");
        let server = format!("https://127.0.0.1:{}", self.port);
        let cluster = json!({ "server": server, "certificate-authority": authority });
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "tests",
            "clusters": [{ "name": "tests", "cluster": cluster }],
            "users": [{ "name": "tests", "user": { "token": TOKEN } }],
            "contexts": [{ "name": "tests", "context": { "cluster": "tests", "user": "tests" } }],
        });
        let path = self.folder.path().join("kubeconfig");
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// None while the certificate has not been written.
    async fn client(&self) -> Option<Client> {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).ok()?;
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.ok()?;
        Client::try_from(config).ok()
    }

    async fn send(&self, method: &str, path: &str, object: &Value) -> Value {
        let patch = "application/strategic-merge-patch+json";
        let kind = if method == "PATCH" { patch } else { "application/json" };
        let request =
            http::Request::builder().method(method).uri(path).header("content-type", kind);
        let request = request.body(object.to_string().into_bytes()).unwrap();
        self.client().await.unwrap().request(request).await.unwrap()
    }

    async fn create(&self, path: &str, object: Value) {
        self.send("POST", path, &object).await;
    }

    /// Sets the status of a pod as its node would.
    async fn set_ready(&self, pod: u8, is_ready: bool) {
        let ready = if is_ready { "True" } else { "False" };
        let address = format!("10.1.0.{pod}");
        let status = json!({ "status": {
            "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
            "conditions": [{ "type": "Ready", "status": ready }],
        } });
        self.send("PATCH", &format!("{PODS}/web-{pod}/status"), &status).await;
    }
}

const PODS: &str = "/api/v1/namespaces/shop/pods";

fn make_keys(folder: &Path) {
    let run = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    run(&["genrsa", "-out", "key", "2048"]);
    run(&["rsa", "-in", "key", "-pubout", "-out", "key.pub"]);
    std::fs::write(folder.join("tokens"), format!("{TOKEN},tests,tests,system:masters\n")).unwrap();
}

fn pod(number: u8) -> Value {
    json!({
        "metadata": { "name": format!("web-{number}"), "labels": { "app": "web" } },
        "spec": { "nodeName": "here", "containers": [{
            "name": "web", "image": "web",
            "ports": [{ "name": "public", "containerPort": 8080 }],
        }] },
    })
}

/// A watch of a service with these pods, which are ready.
async fn followed(plane: &ControlPlane, pods: std::ops::RangeInclusive<u8>) -> Watching {
    plane.create("/api/v1/namespaces", json!({ "metadata": { "name": "shop" } })).await;
    let node =
        json!({ "metadata": { "name": "here", "labels": { "topology.kubernetes.io/zone": "a" } } });
    plane.create("/api/v1/nodes", node).await;
    let ports = json!([{ "name": "http", "port": 80, "targetPort": "public" }]);
    let service = json!({
        "metadata": { "name": "web" }, "spec": { "selector": { "app": "web" }, "ports": ports },
    });
    plane.create("/api/v1/namespaces/shop/services", service).await;

    let mut watching = Watching::new(&web(ApiServer::kubeconfig(plane.kubeconfig())));
    for number in pods.clone() {
        plane.create(PODS, pod(number)).await;
        plane.set_ready(number, true).await;
    }
    let addresses: Vec<_> = pods.map(at).collect();
    watching.until_addresses(&addresses.iter().map(String::as_str).collect::<Vec<_>>()).await;
    // Before the first pod the set was empty.
    watching.least = addresses.len();
    watching
}

fn at(pod: u8) -> String {
    format!("10.1.0.{pod}:8080")
}

/// There is no kubelet to stop the pod, so it terminates for its whole grace period.
async fn terminate(plane: &ControlPlane, pod: u8) {
    let grace = json!({ "gracePeriodSeconds": 600 });
    plane.send("DELETE", &format!("{PODS}/web-{pod}"), &grace).await;
}

#[needs("kube-1.36", "etcd-3.6")]
#[tokio::test]
async fn pods_that_the_controllers_of_kubernetes_put_into_slices_are_followed() {
    let plane = ControlPlane::start().await.unwrap();
    let mut watching = followed(&plane, 1..=3).await;
    let first = watching.find(&at(1)).unwrap();
    assert_eq!(first.zone.as_deref(), Some("a"));
    assert_eq!(first.metadata["kubernetes.pod"], "web-1");

    plane.set_ready(2, false).await;
    watching.until_addresses(&[&at(1), &at(3)]).await;
    plane.set_ready(2, true).await;
    watching.until_addresses(&[&at(1), &at(2), &at(3)]).await;

    terminate(&plane, 3).await;
    watching.until_weights(&[(&at(1), 1), (&at(2), 1), (&at(3), 0)]).await;
    let now = json!({ "gracePeriodSeconds": 0 });
    plane.send("DELETE", &format!("{PODS}/web-3"), &now).await;
    plane.send("DELETE", &format!("{PODS}/web-1"), &now).await;
    watching.until_addresses(&[&at(2)]).await;
    assert_eq!(watching.failures.len(), 0, "{:?}", watching.failures);
}

#[needs("kube-1.36", "etcd-3.6")]
#[tokio::test]
async fn pods_that_terminate_and_serve_get_nothing_new_unless_there_are_no_others() {
    let plane = ControlPlane::start().await.unwrap();
    let mut watching = followed(&plane, 1..=2).await;

    terminate(&plane, 1).await;
    watching.until_weights(&[(&at(1), 0), (&at(2), 1)]).await;
    assert_eq!(watching.find(&at(1)).unwrap().metadata["kubernetes.terminating"], "true");

    // The last ready pod becomes unready, and later terminates too.
    plane.set_ready(2, false).await;
    watching.until_weights(&[(&at(1), 1)]).await;
    plane.set_ready(2, true).await;
    watching.until_weights(&[(&at(1), 0), (&at(2), 1)]).await;
    terminate(&plane, 2).await;
    watching.until_weights(&[(&at(1), 1), (&at(2), 1)]).await;

    // A pod that terminates and no longer serves is gone at once.
    plane.set_ready(1, false).await;
    watching.until_weights(&[(&at(2), 1)]).await;
    assert_eq!(watching.least, 1);
    assert_eq!(watching.failures.len(), 0, "{:?}", watching.failures);
}

#[needs("kube-1.36", "etcd-3.6")]
#[tokio::test]
async fn a_port_that_is_renamed_in_the_service_removes_no_known_pod() {
    let plane = ControlPlane::start().await.unwrap();
    let mut watching = followed(&plane, 1..=2).await;
    let rename = json!({ "spec": { "ports": [
        { "$patch": "replace" }, { "name": "web", "port": 80, "targetPort": "public" },
    ] } });
    plane.send("PATCH", "/api/v1/namespaces/shop/services/web", &rename).await;
    watching.until_failure().await;

    plane.send("DELETE", &format!("{PODS}/web-2"), &json!({ "gracePeriodSeconds": 0 })).await;
    watching.until_addresses(&[&at(1)]).await;
    assert_eq!(watching.least, 1);
}
