//! The endpoints of a trial: processes that can be killed and stopped.

use std::{process::Stdio, time::Duration};

use evenkeel_rig::process::{PATIENCE, own_program, send};
use rustix::process::Signal;
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

/// The length of the accept queue of an endpoint whose queue is to be filled.
const BACKLOG_SHORT: u32 = 16;
const BACKLOG: u32 = 1_024;

/// One endpoint, which can be started again at the same address.
#[derive(Debug)]
pub(crate) struct Endpoint {
    place: Place,
    closes: bool,
    process: Option<Child>,
    /// Connections that fill its accept queue.
    fillers: Vec<TcpStream>,
}

impl Endpoint {
    /// Starts an endpoint. If `closes` is set, it closes connections after each answer and has a
    /// short accept queue.
    pub(crate) async fn start(place: Place, closes: bool) -> Result<Self, BoxError> {
        let mut endpoint = Self { place, closes, process: None, fillers: Vec::new() };
        endpoint.restart().await?;
        Ok(endpoint)
    }

    /// Starts it at the same address.
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

    /// Sets how it behaves.
    pub(crate) async fn set_mode(&mut self, mode: Mode) -> Result<(), BoxError> {
        let input = self.process.as_mut().and_then(|process| process.stdin.as_mut());
        let input = input.ok_or("an endpoint that does not run takes no commands")?;
        Ok(input.write_all(format!("{}\n", mode.word()).as_bytes()).await?)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), BoxError> {
        match &self.process {
            Some(process) => send(process, signal),
            None => Err("an endpoint that does not run cannot be signalled".into()),
        }
    }

    /// Kills it, as in a crash.
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

    /// Fills the accept queue, so that the kernel drops further SYNs.
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
