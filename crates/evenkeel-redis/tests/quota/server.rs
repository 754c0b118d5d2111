//! Redis, started for a test on a free port, which can be stopped and started.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering::SeqCst},
    },
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub(crate) struct Redis {
    port: u16,
    server: Child,
    folder: TempDir,
    arguments: Vec<String>,
}

impl Redis {
    /// Starts it; none, with a loud message, where it is not installed.
    pub(crate) fn start() -> Option<Self> {
        Self::with(tempfile::tempdir().unwrap(), |port| vec!["--port".into(), port.to_string()])
    }

    /// Starts it with TLS alone: it has this certificate and key, and asks for certificates of
    /// `authority`.
    #[cfg(feature = "tls")]
    pub(crate) fn start_secure(certificate: &str, key: &str, authority: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let files = [("--tls-cert-file", certificate), ("--tls-key-file", key)];
        let mut arguments = vec!["--port".to_owned(), "0".into()];
        for (name, text) in files.into_iter().chain([("--tls-ca-cert-file", authority)]) {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            arguments.extend([name.to_owned(), path.display().to_string()]);
        }
        Self::with(folder, |port| {
            [&arguments[..], &["--tls-port".into(), port.to_string()]].concat()
        })
    }

    fn with(folder: TempDir, arguments: impl Fn(u16) -> Vec<String>) -> Option<Self> {
        if !is_installed() {
            // Not by a macro, whose output the test harness hides when the test passes.
            let message =
                "\n!!! QUOTAS ARE NOT TESTED AGAINST REDIS: redis-server is not installed\n";
            let _ = writeln!(std::io::stderr(), "{message}");
            return None;
        }
        // Another process can take a free port before Redis does.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let arguments = arguments(port);
            if let Some(server) = spawn(&arguments, &folder) {
                return Some(Self { port, server, folder, arguments });
            }
        }
        panic!("redis-server does not start");
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    #[cfg(feature = "tls")]
    pub(crate) fn secure_url(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.port)
    }

    /// Makes it a replica of `primary`, or of none.
    pub(crate) async fn replicate(&self, primary: Option<&Self>) {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut command = redis::cmd("REPLICAOF");
        match primary {
            Some(primary) => command.arg("127.0.0.1").arg(primary.port),
            None => command.arg("NO").arg("ONE"),
        };
        let () = command.query_async(&mut connection).await.unwrap();
    }

    /// Waits until it has the data of its primary. For a moment before that, it answers that it is
    /// loading.
    pub(crate) async fn until_replicated(&self) {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        loop {
            let mut command = redis::cmd("INFO");
            let answer = command.arg("replication").query_async::<String>(&mut connection).await;
            if answer.is_ok_and(|answer| answer.contains("master_link_status:up")) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Kills it; all its data is lost.
    pub(crate) fn kill(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    /// Starts it again at the same port.
    pub(crate) fn start_again(&mut self) {
        self.server = spawn(&self.arguments, &self.folder).expect("the port was its own");
    }

    /// Freezes it: it keeps its connections and answers nothing.
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

/// Starts it and waits until it reports that it accepts connections.
fn spawn(arguments: &[String], folder: &TempDir) -> Option<Child> {
    let mut server = Command::new("redis-server")
        .args(arguments)
        .args(["--bind", "127.0.0.1", "--save", ""])
        .args(["--appendonly", "no", "--dir"])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    if lines.by_ref().map_while(Result::ok).any(|line| line.contains("eady to accept")) {
        // Read on, so that it never blocks on a full pipe.
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

/// An address that leads to one server or another, as a virtual address or a name does. Connections
/// stay with the server they were made to.
pub(crate) struct Address {
    pub(crate) url: String,
    leads_to: Arc<AtomicU16>,
    dialled: Arc<AtomicUsize>,
}

impl Address {
    pub(crate) async fn of(redis: &Redis) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let leads_to = Arc::new(AtomicU16::new(redis.port));
        let dialled = Arc::<AtomicUsize>::default();
        let address = Self { url, leads_to: leads_to.clone(), dialled: dialled.clone() };
        tokio::spawn(async move {
            while let Ok((mut caller, _)) = listener.accept().await {
                dialled.fetch_add(1, SeqCst);
                let port = leads_to.load(SeqCst);
                tokio::spawn(async move {
                    let server = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
                    let _ = tokio::io::copy_bidirectional(&mut caller, &mut server?).await;
                    Ok::<_, std::io::Error>(())
                });
            }
        });
        address
    }

    pub(crate) fn lead_to(&self, redis: &Redis) {
        self.leads_to.store(redis.port, SeqCst);
    }

    /// How many connections were made to it.
    pub(crate) fn dialled(&self) -> usize {
        self.dialled.load(SeqCst)
    }
}
