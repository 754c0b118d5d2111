//! A process of this program that takes commands and sends reports, one per line.

use std::{io::Write, process::Stdio, time::Duration};

use evenkeel_rig::process::own_program;
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    sync::watch,
    time::timeout,
};

use crate::BoxError;

/// A process, and its reports so far.
#[derive(Debug)]
pub(crate) struct Lines<T> {
    child: Child,
    told: watch::Receiver<Vec<T>>,
}

impl<T: DeserializeOwned + Send + Sync + 'static> Lines<T> {
    /// Starts this program with these arguments.
    pub(crate) fn start(arguments: &[String]) -> Result<Self, BoxError> {
        let mut command = Command::new(own_program()?);
        command.args(arguments);
        Self::spawn(command)
    }

    /// Starts any program that reports in lines of JSON.
    pub(crate) fn spawn(mut command: Command) -> Result<Self, BoxError> {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let output = child.stdout.take().expect("it is piped");
        let (writer, told) = watch::channel(Vec::new());
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(news) = serde_json::from_str(&line) {
                    writer.send_modify(|all: &mut Vec<T>| all.push(news));
                }
            }
        });
        Ok(Self { child, told })
    }

    /// Sends a command.
    pub(crate) async fn tell(&mut self, line: &str) -> Result<(), BoxError> {
        let input = self.child.stdin.as_mut().ok_or("its input is closed")?;
        Ok(input.write_all(format!("{line}\n").as_bytes()).await?)
    }

    /// Waits until `find` finds something in the reports. None if that takes too long.
    pub(crate) async fn until<R>(
        &mut self,
        after: Duration,
        mut find: impl FnMut(&[T]) -> Option<R>,
    ) -> Option<R> {
        let search = async {
            loop {
                let found = find(&self.told.borrow_and_update());
                if found.is_some() || self.told.changed().await.is_err() {
                    // The last report may have come with the end.
                    return found.or_else(|| find(&self.told.borrow()));
                }
            }
        };
        timeout(after, search).await.ok().flatten()
    }

    /// Reads the reports so far.
    pub(crate) fn so_far<R>(&self, read: impl FnOnce(&[T]) -> R) -> R {
        read(&self.told.borrow())
    }

    /// Closes its input.
    pub(crate) fn close(&mut self) {
        self.child.stdin.take();
    }

    pub(crate) async fn kill(&mut self) -> Result<(), BoxError> {
        Ok(self.child.kill().await?)
    }

    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }
}

/// Ends this process with its parent.
pub(crate) fn end_with_parent() -> Result<(), BoxError> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Sends a report.
pub(crate) fn tell(news: &impl Serialize) {
    let mut line = serde_json::to_vec(news).unwrap_or_default();
    line.push(b'\n');
    let mut output = std::io::stdout().lock();
    // A reader that has gone needs no report.
    _ = output.write_all(&line).and_then(|()| output.flush());
}
