//! Real registries for the examples. They are started if they can be found; if not, a message says
//! so.
#![allow(clippy::disallowed_methods, reason = "an example may look at its watch")]
#![allow(dead_code, reason = "no example needs all of it")]

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::common::BoxError;

/// Finds a program in the folder of `.ci/get-servers` or in PATH.
///
/// If it is missing, prints a message, and fails in CI.
pub(crate) fn find(server: &str, program: &str) -> Result<Option<PathBuf>, BoxError> {
    let found = find_optional(server, program);
    if found.is_none() {
        let missing = format!("!!! {program} is missing: `.ci/get-servers {server}` gets it");
        if std::env::var_os("CI").is_some() {
            return Err(missing.into());
        }
        eprintln!("{missing}");
    }
    Ok(found)
}

/// Finds a program that an example can do without.
pub(crate) fn find_optional(server: &str, program: &str) -> Option<PathBuf> {
    let cached = kept().map(|folder| folder.join(server).join("usr/bin"));
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    cached
        .into_iter()
        .chain(std::env::split_paths(&on_path))
        .map(|folder| folder.join(program))
        .find(|program| program.is_file())
}

/// The folder in which `.ci/get-servers` keeps servers.
fn kept() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    folder("EVENKEEL_SERVERS").or_else(|| Some(cache()?.join("evenkeel/servers")))
}

/// An agent of Consul without persistent data, which ends when this is dropped.
pub(crate) struct Consul {
    pub(crate) url: String,
    program: PathBuf,
    _process: Process,
}

impl Consul {
    pub(crate) fn start() -> Result<Option<Self>, BoxError> {
        let Some(program) = find("consul", "consul")? else { return Ok(None) };
        let [http, server, lan] = free_ports()?;
        let hcl = format!(
            "ports {{ http = {http} server = {server} serf_lan = {lan} serf_wan = -1 dns = -1 grpc = -1 }}"
        );
        let mut command = Command::new(&program);
        command.args(["agent", "-dev", "-bind=127.0.0.1", "-hcl", &hcl]);
        let process = Process::start(&mut command)?;
        let consul = Self { url: format!("http://127.0.0.1:{http}"), program, _process: process };
        until("a leader of Consul", || consul.run(&["operator", "raft", "list-peers"]).is_ok())?;
        Ok(Some(consul))
    }

    /// Runs Consul's own program with these arguments, and returns its output.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String, BoxError> {
        run(Command::new(&self.program).env("CONSUL_HTTP_ADDR", &self.url).args(arguments))
    }
}

/// A member of etcd without persistent data, which ends when this is dropped.
pub(crate) struct Etcd {
    pub(crate) url: String,
    control: PathBuf,
    _process: Process,
    _folder: Folder,
}

impl Etcd {
    pub(crate) fn start() -> Result<Option<Self>, BoxError> {
        let (Some(program), Some(control)) =
            (find("etcd-3.5", "etcd")?, find("etcd-3.5", "etcdctl")?)
        else {
            return Ok(None);
        };
        let [client, peer] = free_ports()?;
        let (url, peer) =
            (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let folder = Folder(std::env::temp_dir().join(format!("evenkeel-etcd-{client}")));
        let mut command = Command::new(program);
        command
            .arg(format!("--data-dir={}", folder.0.display()))
            .arg(format!("--listen-client-urls={url}"))
            .arg(format!("--advertise-client-urls={url}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=default={peer}"));
        let process = Process::start(&mut command)?;
        let etcd = Self { url, control, _process: process, _folder: folder };
        until("a leader of etcd", || etcd.run(&["endpoint", "health"]).is_ok())?;
        Ok(Some(etcd))
    }

    /// Runs etcd's own program with these arguments, and returns its output.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String, BoxError> {
        let mut command = Command::new(&self.control);
        command.arg(format!("--endpoints={}", self.url));
        run(command.args(arguments))
    }
}

/// A process that ends when this is dropped.
pub(crate) struct Process(Child);

impl Process {
    /// Starts the process without output.
    pub(crate) fn start(command: &mut Command) -> Result<Self, BoxError> {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn()?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(Path::new(&self.0));
    }
}

/// Ports of loopback that are free now.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N], BoxError> {
    // All are held at once, so that they differ, and released before the server takes them.
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0"));
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(held) {
        *port = listener?.local_addr()?.port();
    }
    Ok(ports)
}

fn run(command: &mut Command) -> Result<String, BoxError> {
    let output = command.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Result<(), BoxError> {
    for _ in 0..600 {
        if is_so() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(format!("not in time: {what}").into())
}
