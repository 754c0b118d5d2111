//! Redis, started for a test on a free port, to be stopped and started meanwhile.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub(crate) struct Redis {
    port: u16,
    server: Child,
    folder: TempDir,
}

impl Redis {
    /// Starts it; none, with a loud message, where it is not installed and this is not CI.
    pub(crate) fn start() -> Option<Self> {
        if !is_installed() {
            let advice = "redis-server is not installed (package redis-server)";
            let is_required = ["CI", "EVENKEEL_REQUIRE_SERVERS"]
                .iter()
                .any(|name| std::env::var_os(name).is_some());
            assert!(!is_required, "{advice}");
            // Not by a macro, whose output the test harness hides when the test passes.
            let message = format!("\n!!! QUOTAS ARE NOT TESTED AGAINST REDIS: {advice}\n");
            let _ = writeln!(std::io::stderr(), "{message}");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        // Between its being found and its being taken a port can be lost to somebody else.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if let Some(server) = spawn(port, &folder) {
                return Some(Self { port, server, folder });
            }
        }
        panic!("redis-server does not start");
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Kills it, with all that it knows.
    pub(crate) fn kill(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    /// Starts it again at the same port.
    pub(crate) fn start_again(&mut self) {
        self.server = spawn(self.port, &self.folder).expect("the port was its own");
    }

    /// It keeps its connections and answers nobody.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.server.id().try_into().unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts it and waits until it says that it accepts connections.
fn spawn(port: u16, folder: &TempDir) -> Option<Child> {
    let mut server = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--appendonly", "no", "--dir"])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    if lines.by_ref().map_while(Result::ok).any(|line| line.contains("eady to accept")) {
        // Read on, so that it never waits for somebody to read.
        std::thread::spawn(move || lines.count());
        return Some(server);
    }
    let _ = server.wait();
    None
}

fn is_installed() -> bool {
    let mut command = Command::new("redis-server");
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok()
}
