//! Real members of etcd, started for a test on free ports.
#![allow(dead_code, reason = "no test needs all of it")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use evenkeel_discovery::etcd::Cluster;
use tempfile::TempDir;

use crate::support::servers::{Process, find, free_ports, until};

/// The versions with which every test runs.
pub(crate) const VERSIONS: [&str; 3] = ["etcd-3.4", "etcd-3.5", "etcd-3.6"];

/// A cluster of members of one version.
pub(crate) struct Etcd {
    pub(crate) members: Vec<Member>,
    control: PathBuf,
    user: Option<String>,
    folder: TempDir,
}

pub(crate) struct Member {
    pub(crate) process: Process,
    pub(crate) url: String,
    program: PathBuf,
    arguments: Vec<String>,
    data: PathBuf,
    log: PathBuf,
}

impl Etcd {
    /// One member; none if it is missing.
    pub(crate) async fn start(version: &str) -> Option<Self> {
        Self::of([free_ports()].into(), version, &[]).await
    }

    pub(crate) async fn start_with(version: &str, more: &[&str]) -> Option<Self> {
        Self::of([free_ports()].into(), version, more).await
    }

    pub(crate) async fn start_three(version: &str) -> Option<Self> {
        let [a, b, c, d, e, f] = free_ports();
        Self::of([[a, b], [c, d], [e, f]].into(), version, &[]).await
    }

    async fn of(ports: Vec<[u16; 2]>, version: &str, more: &[&str]) -> Option<Self> {
        let (program, control) = (find(version, "etcd")?, find(version, "etcdctl")?);
        let folder = tempfile::tempdir().unwrap();
        let initial: Vec<_> =
            ports.iter().map(|[_, peer]| format!("m{peer}=http://127.0.0.1:{peer}")).collect();
        let members = ports
            .iter()
            .map(|ports| Member::start(&program, *ports, &initial.join(","), folder.path(), more))
            .collect();
        let etcd = Self { members, control, user: None, folder };
        until("a leader of etcd", || async { etcd.is_ready() }).await;
        Some(etcd)
    }

    fn is_ready(&self) -> bool {
        self.members
            .iter()
            .all(|member| self.run(&member.url, &["endpoint", "health"]).status.success())
    }

    /// Waits until these members have a leader.
    pub(crate) async fn until_ready_of(&self, members: &[usize]) {
        let is_ready = |member: &usize| {
            self.run(&self.members[*member].url, &["endpoint", "health"]).status.success()
        };
        until("a leader of etcd", || async { members.iter().all(is_ready) }).await;
    }

    pub(crate) async fn until_ready(&self) {
        until("a leader of etcd", || async { self.is_ready() }).await;
    }

    pub(crate) fn cluster(&self) -> Cluster {
        Cluster::at(self.members.iter().map(|member| &*member.url)).unwrap()
    }

    /// From now on, the test itself asks as this user.
    pub(crate) fn ask_as(&mut self, user: &str) {
        self.user = Some(user.to_owned());
    }

    /// The output of etcdctl.
    pub(crate) fn control(&self, arguments: &[&str]) -> String {
        let output = self.run(&self.members[0].url, arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn run(&self, url: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.control);
        command.arg(format!("--endpoints={url}"));
        command.arg("--command-timeout=30s");
        if let Some(user) = &self.user {
            command.arg(format!("--user={user}"));
        }
        command.args(arguments).output().unwrap()
    }

    pub(crate) fn put(&self, id: &str, value: &str) {
        self.control(&["put", &format!("/evenkeel/web/{id}"), value]);
    }

    pub(crate) fn delete(&self, id: &str) {
        self.control(&["del", &format!("/evenkeel/web/{id}")]);
    }

    /// Makes several changes at one revision, in the language of `etcdctl txn`.
    pub(crate) fn transact(&self, lines: &str) {
        use std::io::Write;
        let mut command = Command::new(&self.control);
        command.arg(format!("--endpoints={}", self.members[0].url));
        command.arg("txn").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("\n{lines}\n\n\n").as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// The current revision.
    pub(crate) fn revision(&self) -> u64 {
        let status: serde_json::Value =
            serde_json::from_str(&self.control(&["endpoint", "status", "-w", "json"])).unwrap();
        status[0]["Status"]["header"]["revision"].as_u64().unwrap()
    }
}

impl Member {
    fn start(
        program: &Path,
        [client, peer]: [u16; 2],
        initial: &str,
        folder: &Path,
        more: &[&str],
    ) -> Self {
        let (url, peer_url) =
            (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let (data, log) = (folder.join(format!("m{peer}")), folder.join(format!("m{peer}.log")));
        let mut arguments = vec![
            format!("--name=m{peer}"),
            format!("--data-dir={}", data.display()),
            format!("--listen-client-urls={url}"),
            format!("--advertise-client-urls={url}"),
            format!("--listen-peer-urls={peer_url}"),
            format!("--initial-advertise-peer-urls={peer_url}"),
            format!("--initial-cluster={initial}"),
            "--logger=zap".to_owned(),
            // Passwords are not tested here, and each check would take a second of a busy machine.
            "--bcrypt-cost=4".to_owned(),
        ];
        arguments.extend(more.iter().map(ToString::to_string));
        let process = Process::start(Command::new(program).args(&arguments), &log);
        Self { process, url, program: program.into(), arguments, data, log }
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    pub(crate) fn start_again(&mut self) {
        self.process = Process::start(Command::new(&self.program).args(&self.arguments), &self.log);
    }

    /// Removes all its data.
    pub(crate) fn forget(&mut self) {
        std::fs::remove_dir_all(&self.data).unwrap();
    }
}
