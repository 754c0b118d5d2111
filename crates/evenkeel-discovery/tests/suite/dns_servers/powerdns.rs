//! PowerDNS over a database of its own, changed through its HTTP interface.

use std::{fs, net::SocketAddr, process::Command};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::servers::{Process, find, free_ports, until};

/// Where Debian installs the schema of the database.
const SCHEMA: &str = "/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql";

pub(crate) struct PowerDns {
    pub(crate) address: SocketAddr,
    server: Process,
    api: SocketAddr,
    _folder: TempDir,
}

impl PowerDns {
    /// A server for `example.test`; none if it is missing.
    pub(crate) async fn start() -> Option<Self> {
        let (program, sqlite) = (find("pdns-server", "pdns_server")?, find("sqlite3", "sqlite3")?);
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("zones");
        let schema = fs::File::open(SCHEMA).unwrap();
        assert!(Command::new(sqlite).arg(&database).stdin(schema).status().unwrap().success());
        let [port, api] = free_ports();
        let directory = folder.path().display();
        let configuration = format!(
            "launch=gsqlite3\ngsqlite3-database={}\nlocal-address=127.0.0.1\nlocal-port={port}\n\
             webserver=yes\nwebserver-address=127.0.0.1\nwebserver-port={api}\napi=yes\napi-key=tests\n\
             daemon=no\nguardian=no\nsocket-dir={directory}\nwrite-pid=no\ncache-ttl=0\nquery-cache-ttl=0\n\
             negquery-cache-ttl=0\nzone-cache-refresh-interval=0\nsecurity-poll-suffix=\n",
            database.display()
        );
        fs::write(folder.path().join("pdns.conf"), configuration).unwrap();
        let mut command = Command::new(program);
        command.arg(format!("--config-dir={directory}"));
        let server = Process::start(&mut command, &folder.path().join("log"));
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let powerdns = Self { address: local(port), server, api: local(api), _folder: folder };
        let zone = json!({
            "name": "example.test.", "kind": "Native", "nameservers": ["ns.example.test."],
        });
        until("PowerDNS", || async {
            powerdns.ask("POST", "/api/v1/servers/localhost/zones", &zone).await.is_some()
        })
        .await;
        Some(powerdns)
    }

    /// Replaces the records of a name and a type.
    pub(crate) async fn replace(&self, name: &str, kind: &str, records: &[&str]) {
        let records: Vec<_> =
            records.iter().map(|text| json!({ "content": text, "disabled": false })).collect();
        let change = if records.is_empty() { "DELETE" } else { "REPLACE" };
        let set = json!({
            "name": format!("{name}.example.test."), "type": kind, "ttl": 1,
            "changetype": change, "records": records,
        });
        let path = "/api/v1/servers/localhost/zones/example.test.";
        self.ask("PATCH", path, &json!({ "rrsets": [set] })).await.expect("a change that is taken");
    }

    pub(crate) fn stop(&mut self) {
        self.server.kill();
    }

    /// Sends one request; none if it fails.
    async fn ask(&self, method: &str, path: &str, body: &Value) -> Option<()> {
        let mut stream = tokio::net::TcpStream::connect(self.api).await.ok()?;
        let body = body.to_string();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: tests\r\nX-API-Key: tests\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.lines().next()?.contains(" 20").then_some(())
    }
}
