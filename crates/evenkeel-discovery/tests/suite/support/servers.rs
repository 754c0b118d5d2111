//! Real servers for tests: how to find, start and end them.
#![allow(dead_code, reason = "no test needs all of it")]

use std::{
    fs::File,
    io::Write,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take to start, on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(180);

/// The program of a server, from the folder of `.ci/get-servers` or from PATH.
///
/// Prints a loud message if it is missing. A test that needs it has the attribute `needs`, so that
/// it then counts as ignored.
pub(crate) fn find(server: &str, program: &str) -> Option<PathBuf> {
    let folders = kept().into_iter().map(|folder| folder.join(server).join("usr/bin"));
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let found = folders
        .chain(std::env::split_paths(&on_path))
        .map(|folder| folder.join(program))
        .find(|path| path.is_file());
    if found.is_none() {
        let advice = format!("{server} is missing (`.ci/get-servers {server}` gets it)");
        // Not by a macro, whose output the test harness hides when the test passes.
        let _ = writeln!(std::io::stderr(), "\n!!! NOT TESTED AGAINST THE REAL SERVER: {advice}\n");
    }
    found
}

/// The folder in which `.ci/get-servers` keeps servers.
fn kept() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    folder("EVENKEEL_SERVERS").or_else(|| Some(cache()?.join("evenkeel/servers")))
}

/// The process of a server, which ends when this is dropped.
pub(crate) struct Process(Child);

impl Process {
    /// Starts `command`, with its output in `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).unwrap();
        let command = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self(command.spawn().unwrap())
    }

    /// Pauses it, with its sockets open.
    pub(crate) fn pause(&self) {
        kill_process(self.pid(), Signal::STOP).unwrap();
    }

    pub(crate) fn resume(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }

    /// Kills it without a clean shutdown.
    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ports that are free now, for TCP and UDP.
///
/// They lie below the range that the system uses for connections and for port 0, since the system
/// could otherwise take them before the server does.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    const FIRST: u32 = 10_240;
    const COUNT: u32 = 22_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    [(); N].map(|()| {
        loop {
            let begin = std::process::id().wrapping_mul(7_919);
            let turn = begin.wrapping_add(NEXT.fetch_add(1, Relaxed));
            let address = (Ipv4Addr::LOCALHOST, (FIRST + turn % COUNT) as u16);
            if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
                break address.1;
            }
        }
    })
}

/// Calls `is_so` again and again until it returns true.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let asked = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(START_TIMEOUT, asked)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// A proxy to a server that can be shut and opened: connections are cut, or let through.
pub(crate) struct Gate {
    pub(crate) url: String,
    is_open: tokio::sync::watch::Sender<bool>,
}

impl Gate {
    /// A proxy to `url`, which is `http://` and an address.
    pub(crate) async fn to(url: &str) -> Self {
        let target = url.trim_start_matches("http://").to_owned();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (is_open, opened) = tokio::sync::watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut inside, _)) = listener.accept().await {
                if !*opened.borrow() {
                    continue;
                }
                let (target, mut opened) = (target.clone(), opened.clone());
                tokio::spawn(async move {
                    // A connection that the server does not accept is cut too.
                    let Ok(mut outside) = tokio::net::TcpStream::connect(target).await else {
                        return;
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut inside, &mut outside) => {}
                        _ = opened.wait_for(|is_open| !is_open) => {}
                    }
                });
            }
        });
        Self { url, is_open }
    }

    pub(crate) fn shut(&self) {
        self.is_open.send_replace(false);
    }

    pub(crate) fn open(&self) {
        self.is_open.send_replace(true);
    }
}
