//! A real agent of Consul, started for a test on free ports.
#![allow(dead_code, reason = "no test needs all of it")]

use std::{path::PathBuf, process::Command};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::servers::{Process, find, free_ports, until};

/// The tested versions. Since 1.11 an agent pushes nothing that it believes to be there, and
/// reports what was left out for lack of rights. Since 1.12 its refusals have other texts.
pub(crate) const VERSIONS: [&str; 2] = ["consul", "consul-1.14"];

pub(crate) struct Agent {
    pub(crate) process: Process,
    pub(crate) url: String,
    pub(crate) folder: TempDir,
    /// The port at which other agents join it.
    pub(crate) lan: u16,
    program: PathBuf,
    arguments: Vec<String>,
    token: Option<String>,
}

impl Agent {
    /// An agent that keeps nothing when it ends; none if Consul is missing.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_of(VERSIONS[0]).await
    }

    pub(crate) async fn start_of(version: &str) -> Option<Self> {
        Self::with_of(version, json!({}), &["-dev"], None).await
    }

    /// An agent that keeps its data.
    pub(crate) async fn start_lasting() -> Option<Self> {
        Self::start_lasting_of(VERSIONS[0]).await
    }

    pub(crate) async fn start_lasting_of(version: &str) -> Option<Self> {
        let raft = json!({ "performance": { "raft_multiplier": 1 } });
        Self::with_of(version, raft, &["-server", "-bootstrap-expect=1"], None).await
    }

    /// An agent that is not a server, and joins this one.
    pub(crate) async fn join(&self) -> Option<Self> {
        let servers = format!("127.0.0.1:{}", self.lan);
        let configuration = json!({ "retry_join": [servers], "retry_interval": "1s" });
        Self::with(configuration, &[], None).await
    }

    /// An agent with this configuration; the test itself asks with `token`.
    pub(crate) async fn with(
        configuration: Value,
        arguments: &[&str],
        token: Option<&str>,
    ) -> Option<Self> {
        Self::with_of(VERSIONS[0], configuration, arguments, token).await
    }

    pub(crate) async fn with_of(
        version: &str,
        configuration: Value,
        arguments: &[&str],
        token: Option<&str>,
    ) -> Option<Self> {
        let program = find(version, "consul")?;
        let folder = tempfile::tempdir().unwrap();
        let [http, server, lan] = free_ports();
        let mut all = json!({
            "node_name": format!("n{http}"), "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1",
            "ports": { "http": http, "server": server, "serf_lan": lan, "serf_wan": -1, "dns": -1,
                "grpc": -1 },
            "disable_update_check": true, "leave_on_terminate": false,
        });
        if has_grpc_tls(&program) {
            all["ports"]["grpc_tls"] = (-1).into();
        }
        for (key, value) in configuration.as_object().unwrap() {
            match (all.get_mut(key).and_then(Value::as_object_mut), value.as_object()) {
                (Some(all), Some(more)) => all.extend(more.clone()),
                _ => all[key] = value.clone(),
            }
        }
        let path = folder.path().join("agent.json");
        std::fs::write(&path, all.to_string()).unwrap();
        let mut arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        arguments.push(format!("-config-file={}", path.display()));
        if !arguments.contains(&"-dev".to_owned()) {
            arguments.push(format!("-data-dir={}", folder.path().join("data").display()));
        }
        let process = launch(&program, &arguments, &folder);
        let token = token.map(str::to_owned);
        let url = format!("http://127.0.0.1:{http}");
        let agent = Self { process, url, folder, lan, program, arguments, token };
        agent.until_ready().await;
        Some(agent)
    }

    /// Kills it without a clean shutdown.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again, on the same ports.
    pub(crate) async fn start_again(&mut self) {
        self.process = launch(&self.program, &self.arguments, &self.folder);
        self.until_ready().await;
    }

    async fn until_ready(&self) {
        until("a leader of Consul", || async {
            self.ask("GET", "/v1/status/leader", Value::Null)
                .await
                .is_ok_and(|leader| leader.as_str().is_some_and(|leader| !leader.is_empty()))
        })
        .await;
        // A leader begins to serve the catalogue a little later.
        until("a catalogue", || async {
            self.ask("GET", "/v1/health/service/consul", Value::Null)
                .await
                .is_ok_and(|rows| rows.as_array().is_some_and(|rows| !rows.is_empty()))
        })
        .await;
    }

    /// The output of Consul's own program for `snapshot save` or `snapshot restore`.
    pub(crate) fn snapshot(&self, verb: &str) {
        let mut command = Command::new(&self.program);
        command.args(["snapshot", verb, &format!("-http-addr={}", self.url)]);
        let output = command.arg(self.folder.path().join("snapshot")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Its answer, or the status and the text of its refusal.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        body: Value,
    ) -> Result<Value, (u16, String)> {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.header("x-consul-token", token);
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = client.request(request.body(Full::from(body)).unwrap()).await;
        let answer = answer.map_err(|error| (0, error.to_string()))?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|error| (0, error.to_string()))?;
        let body = body.to_bytes();
        if !status.is_success() {
            return Err((status.as_u16(), String::from_utf8_lossy(&body).into_owned()));
        }
        Ok(serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    pub(crate) async fn put(&self, path: &str, body: Value) {
        self.ask("PUT", path, body).await.unwrap();
    }

    /// Enters an instance of `web` on `port` of 10.0.0.1.
    pub(crate) async fn enter(&self, port: u16) {
        self.enter_with(port, json!({})).await;
    }

    pub(crate) async fn enter_with(&self, port: u16, more: Value) {
        let mut service = json!({ "ID": format!("web-{port}"), "Name": "web", "Address": "10.0.0.1", "Port": port });
        service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.put("/v1/agent/service/register", service).await;
    }

    pub(crate) async fn leave(&self, port: u16) {
        self.put(&format!("/v1/agent/service/deregister/web-{port}"), Value::Null).await;
    }
}

/// Whether it listens for gRPC over TLS by default, as since 1.14. Older versions refuse the
/// option.
fn has_grpc_tls(program: &PathBuf) -> bool {
    let output = Command::new(program).arg("version").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().find_map(|word| word.strip_prefix('v'));
    let mut parts = version.unwrap_or_default().split('.').map(str::parse::<u32>);
    matches!((parts.next(), parts.next()), (Some(Ok(major)), Some(Ok(minor))) if (1, 14) <= (major, minor))
}

fn launch(program: &PathBuf, arguments: &[String], folder: &TempDir) -> Process {
    let mut command = Command::new(program);
    command.arg("agent").args(arguments);
    Process::start(&mut command, &folder.path().join("log"))
}
