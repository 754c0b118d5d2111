//! CoreDNS, over a file, an etcd, or a cluster.

use std::{fs, net::SocketAddr, path::PathBuf, process::Command};

use tempfile::TempDir;

use crate::support::servers::{Process, find, free_ports, until};

pub(crate) struct CoreDns {
    pub(crate) address: SocketAddr,
    _server: Process,
    etcd: Option<Etcd>,
    folder: TempDir,
}

struct Etcd {
    _process: Process,
    control: PathBuf,
    url: String,
}

impl CoreDns {
    /// A server that serves `example.test` by this configuration; none if it is missing.
    pub(crate) fn start(zone: &str, how: &str, folder: TempDir) -> Option<Self> {
        let program = find("coredns", "coredns")?;
        let [port] = free_ports();
        let configuration = folder.path().join("Corefile");
        fs::write(&configuration, format!("{zone}:{port} {{\n bind 127.0.0.1\n {how}\n}}\n"))
            .unwrap();
        let mut command = Command::new(program);
        command.arg("-conf").arg(configuration);
        let server = Process::start(&mut command, &folder.path().join("coredns.log"));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Some(Self { address, _server: server, etcd: None, folder })
    }

    /// From a file in which `db` has these addresses.
    pub(crate) fn from_file(addresses: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        write_zone(&folder, 1, addresses);
        let file = folder.path().join("zone");
        Self::start("example.test", &format!("file {} {{\n reload 1s\n }}", file.display()), folder)
    }

    /// Writes the file again.
    pub(crate) fn zone(&self, serial: u32, addresses: &[&str]) {
        write_zone(&self.folder, serial, addresses);
    }

    /// From an etcd of its own.
    pub(crate) async fn from_etcd() -> Option<Self> {
        let (program, control) = (find("etcd-3.5", "etcd")?, find("etcd-3.5", "etcdctl")?);
        let folder = tempfile::tempdir().unwrap();
        let [client, peer] = free_ports().map(|port| format!("http://127.0.0.1:{port}"));
        let mut command = Command::new(program);
        command
            .arg(format!("--data-dir={}", folder.path().join("data").display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=default={peer}"));
        let process = Process::start(&mut command, &folder.path().join("etcd.log"));
        let etcd = Etcd { _process: process, control, url: client };
        until("etcd", || async { etcd.run(&["endpoint", "health"]) }).await;
        let how = format!("etcd {{\n path /skydns\n endpoint {}\n }}", etcd.url);
        let coredns = Self::start("example.test", &how, folder)?;
        Some(Self { etcd: Some(etcd), ..coredns })
    }

    /// Writes a service under a name within `example.test`, with its labels in the order of paths.
    pub(crate) fn put(&self, name: &str, value: &str) {
        let etcd = self.etcd.as_ref().unwrap();
        assert!(etcd.run(&["put", &format!("/skydns/test/example/{name}"), value]));
    }

    pub(crate) fn delete(&self, name: &str) {
        let etcd = self.etcd.as_ref().unwrap();
        assert!(etcd.run(&["del", &format!("/skydns/test/example/{name}")]));
    }
}

impl Etcd {
    fn run(&self, arguments: &[&str]) -> bool {
        let mut command = Command::new(&self.control);
        command.arg(format!("--endpoints={}", self.url));
        command.args(arguments).output().unwrap().status.success()
    }
}

fn write_zone(folder: &TempDir, serial: u32, addresses: &[&str]) {
    let hosts: String = addresses.iter().map(|address| format!("db IN A {address}\n")).collect();
    let zone = format!(
        "$ORIGIN example.test.\n$TTL 1\n@ IN SOA ns root {serial} 60 60 600 1\n@ IN NS ns\n\
         ns IN A 127.0.0.1\n{hosts}_grpc._tcp IN SRV 0 14 8080 db\n"
    );
    // Renamed into place: a half-written zone must not be read.
    fs::write(folder.path().join("zone.new"), zone).unwrap();
    fs::rename(folder.path().join("zone.new"), folder.path().join("zone")).unwrap();
}
