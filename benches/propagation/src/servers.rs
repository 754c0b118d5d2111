//! Real servers: how they are found, started, stopped and ended.

use std::{
    ffi::OsString,
    fs::File,
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use evenkeel_rig::process::{self, send, with_parent};
use rustix::process::Signal;
use tokio::{process::Child, time::sleep};

use crate::BoxError;

/// How long a server may take to start on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The program of a server, from the folder of `.ci/get-servers` or from PATH.
pub(crate) fn find(server: &str, program: &str) -> Option<PathBuf> {
    let cached = servers_folder().map(|folder| folder.join(server).join("usr/bin").join(program));
    cached.filter(|path| path.is_file()).or_else(|| process::find(program.as_ref()))
}

/// The folder in which `.ci/get-servers` keeps servers.
fn servers_folder() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    folder("EVENKEEL_SERVERS").or_else(|| Some(cache()?.join("evenkeel/servers")))
}

/// The note for a server that is not installed.
pub(crate) fn missing(server: &str, program: &str) -> Option<String> {
    let advice =
        || format!("not measured: {server} is missing, `.ci/get-servers {server}` gets it");
    find(server, program).is_none().then(advice)
}

/// A server's process, which can be started again and ends with this process.
#[derive(Debug)]
pub(crate) struct Server {
    program: PathBuf,
    arguments: Vec<OsString>,
    log: PathBuf,
    process: Child,
}

impl Server {
    /// Starts `program` and writes its output to `log`.
    pub(crate) fn start<S: Into<OsString>>(
        program: &Path,
        arguments: impl IntoIterator<Item = S>,
        log: PathBuf,
    ) -> Result<Self, BoxError> {
        let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
        let process = spawn(program, &arguments, &log)?;
        Ok(Self { program: program.to_owned(), arguments, log, process })
    }

    /// Kills it, without a graceful stop.
    pub(crate) async fn kill(&mut self) -> Result<(), BoxError> {
        Ok(self.process.kill().await?)
    }

    pub(crate) fn start_again(&mut self) -> Result<(), BoxError> {
        self.process = spawn(&self.program, &self.arguments, &self.log)?;
        Ok(())
    }

    /// Stops it (SIGSTOP) with its sockets open.
    pub(crate) fn pause(&self) -> Result<(), BoxError> {
        send(&self.process, Signal::STOP)
    }

    pub(crate) fn resume(&self) -> Result<(), BoxError> {
        send(&self.process, Signal::CONT)
    }
}

fn spawn(program: &Path, arguments: &[OsString], log: &Path) -> Result<Child, BoxError> {
    let log = File::options().create(true).append(true).open(log)?;
    let mut command = with_parent(program)?;
    command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(command.kill_on_drop(true).spawn()?)
}

/// Ports that are free now, for TCP and UDP.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N], BoxError> {
    let mut held = Vec::new();
    // All are held until all are found, so that they differ.
    while held.len() < N {
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let address = tcp.local_addr()?;
        if let Ok(udp) = UdpSocket::bind(address) {
            held.push((address.port(), tcp, udp));
        }
    }
    Ok(std::array::from_fn(|index| held[index].0))
}

/// The address of a port on loopback.
pub(crate) fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Asks repeatedly until the answer is yes.
pub(crate) async fn until<F: Future<Output = bool>>(
    what: &str,
    mut is_so: impl FnMut() -> F,
) -> Result<(), BoxError> {
    let asked = async {
        while !is_so().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let in_time = tokio::time::timeout(START_TIMEOUT, asked).await;
    in_time.map_err(|_| format!("not in time: {what}").into())
}
