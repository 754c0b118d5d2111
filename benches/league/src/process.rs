//! The processes of a trial: endpoints, which are killed and stopped, and proxies.

use std::{
    ffi::OsStr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
    process::{Child, Command},
    time::timeout,
};

use crate::{
    BoxError,
    endpoint::{ARGUMENT, Mode},
    scene::{Lane, Place},
};

/// Says that this process is to become another: `--with-parent PROGRAM ...`.
pub(crate) const WITH_PARENT: &str = "--with-parent";

/// By then a process that was started answers, or one that was told to end has ended.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many connections may wait to be accepted where the queue is to be filled.
const BACKLOG_SHORT: u32 = 16;
const BACKLOG: u32 = 1_024;

/// One endpoint, which can be started again at its address.
#[derive(Debug)]
pub(crate) struct Endpoint {
    place: Place,
    closes: bool,
    process: Option<Child>,
    /// Connections that fill its accept queue.
    fillers: Vec<TcpStream>,
}

impl Endpoint {
    /// Starts one; `closes` for one that closes connections after each answer and lets few wait.
    pub(crate) async fn start(place: Place, closes: bool) -> Result<Self, BoxError> {
        let mut endpoint = Self { place, closes, process: None, fillers: Vec::new() };
        endpoint.restart().await?;
        Ok(endpoint)
    }

    /// Starts it, at the same address.
    pub(crate) async fn restart(&mut self) -> Result<(), BoxError> {
        let Place { requests, health } = self.place;
        let (backlog, keep) =
            if self.closes { (BACKLOG_SHORT, "close") } else { (BACKLOG, "keep") };
        let mut process = Command::new(own_program()?)
            .args([
                ARGUMENT,
                &requests.to_string(),
                &health.to_string(),
                &backlog.to_string(),
                keep,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = process.stdout.take().expect("it is piped");
        let line = timeout(PATIENCE, BufReader::new(output).lines().next_line()).await??;
        if line.as_deref() != Some("ready") {
            return Err(format!("the endpoint at {requests} does not start").into());
        }
        self.process = Some(process);
        Ok(())
    }

    /// Tells it how to behave.
    pub(crate) async fn behave(&mut self, mode: Mode) -> Result<(), BoxError> {
        let input = self.process.as_mut().and_then(|process| process.stdin.as_mut());
        let input = input.ok_or("an endpoint that does not run cannot be told anything")?;
        Ok(input.write_all(format!("{}\n", mode.word()).as_bytes()).await?)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), BoxError> {
        match &self.process {
            Some(process) => send(process, signal),
            None => Err("an endpoint that does not run cannot be signalled".into()),
        }
    }

    /// Kills it as a crash does.
    pub(crate) async fn kill(&mut self) -> Result<(), BoxError> {
        if let Some(mut process) = self.process.take() {
            process.kill().await?;
        }
        Ok(())
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) -> Result<(), BoxError> {
        if let Some(mut process) = self.process.take() {
            timeout(PATIENCE, process.wait()).await??;
        }
        Ok(())
    }

    /// Fills the queue of connections that wait to be accepted, so that the kernel drops further SYNs.
    pub(crate) async fn fill_queue(&mut self, lane: Lane) {
        const WAIT: Duration = Duration::from_millis(20);
        let attempts = (0..2 * BACKLOG_SHORT).map(|_| async {
            let socket = TcpSocket::new_v4()?;
            socket.bind(lane.filler())?;
            timeout(WAIT, socket.connect(self.place.requests)).await?
        });
        let connected: Vec<std::io::Result<TcpStream>> =
            futures_util::future::join_all(attempts).await;
        self.fillers = connected.into_iter().flatten().collect();
    }

    pub(crate) fn drop_fillers(&mut self) {
        self.fillers.clear();
    }
}

/// A proxy, which is ended as it wants to be, so that it ends its workers.
#[derive(Debug)]
pub(crate) struct Proxy {
    process: Child,
}

impl Proxy {
    /// Starts `program`, which ends with this process at the latest.
    pub(crate) fn start<I, S>(program: &Path, arguments: I) -> Result<Self, BoxError>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = Command::new(own_program()?);
        command.arg(WITH_PARENT).arg(program).args(arguments);
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Ok(Self { process: process.map_err(|error| format!("{command:?}: {error}"))? })
    }

    /// Its id, to signal it by while it is owned elsewhere.
    pub(crate) fn id(&self) -> Result<ProxyId, BoxError> {
        Ok(ProxyId(id(&self.process)?))
    }

    pub(crate) async fn stop(mut self) -> Result<(), BoxError> {
        send(&self.process, Signal::TERM)?;
        if timeout(PATIENCE, self.process.wait()).await.is_err() {
            self.process.kill().await?;
        }
        Ok(())
    }
}

/// Becomes the program that `words` name, which ends with the parent of this process: what a process asks
/// for in this respect outlives its becoming another.
pub(crate) fn become_program(words: &[String]) -> Result<(), BoxError> {
    let (program, arguments) = words.split_first().ok_or("usage: --with-parent PROGRAM ...")?;
    set_parent_process_death_signal(Some(Signal::TERM))?;
    let error = std::process::Command::new(program).args(arguments).exec();
    Err(format!("{program}: {error}").into())
}

/// Where a trial breaks off, nothing stays behind.
impl Drop for Proxy {
    fn drop(&mut self) {
        _ = send(&self.process, Signal::TERM);
    }
}

/// The process of a proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProxyId(Pid);

impl ProxyId {
    /// Has it read its configuration again.
    pub(crate) fn reload(self) -> Result<(), BoxError> {
        Ok(kill_process(self.0, Signal::HUP)?)
    }
}

fn send(process: &Child, signal: Signal) -> Result<(), BoxError> {
    Ok(kill_process(id(process)?, signal)?)
}

fn id(process: &Child) -> Result<Pid, BoxError> {
    let id = process.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
    Ok(id.ok_or("the process has ended already")?)
}

fn own_program() -> std::io::Result<PathBuf> {
    // Not its name: the file may have been built anew meanwhile.
    let link = PathBuf::from("/proc/self/exe");
    if link.exists() { Ok(link) } else { std::env::current_exe() }
}
