//! Processes that are started, signalled and ended, and that end with their parent.

use std::{
    ffi::OsStr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::BoxError;

/// Argument that makes this process become another program: `--with-parent PROGRAM ...`.
pub const WITH_PARENT: &str = "--with-parent";

/// How long a process may take to answer after its start, or to end after it was told to.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Another program. It is asked to end first, so that it can end its own children.
#[derive(Debug)]
pub struct Companion {
    process: Child,
}

impl Companion {
    /// Starts `program` without output. It ends with this process at the latest.
    ///
    /// # Errors
    /// If this program cannot be started again.
    pub fn start<I, S>(program: &Path, arguments: I) -> Result<Self, BoxError>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = with_parent(program)?;
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        let process = command.spawn();
        Ok(Self { process: process.map_err(|error| format!("{command:?}: {error}"))? })
    }

    /// Its process id, for signals from elsewhere.
    ///
    /// # Errors
    /// If it has ended.
    pub fn id(&self) -> Result<CompanionId, BoxError> {
        Ok(CompanionId(id(&self.process)?))
    }

    /// Asks it to end, and waits until it has ended.
    ///
    /// # Errors
    /// If it has ended before.
    pub async fn stop(mut self) -> Result<(), BoxError> {
        send(&self.process, Signal::TERM)?;
        if timeout(PATIENCE, self.process.wait()).await.is_err() {
            self.process.kill().await?;
        }
        Ok(())
    }
}

/// Leaves no process behind when a trial stops early.
impl Drop for Companion {
    fn drop(&mut self) {
        _ = send(&self.process, Signal::TERM);
    }
}

/// The process of a companion.
#[derive(Clone, Copy, Debug)]
pub struct CompanionId(Pid);

impl CompanionId {
    /// Makes it read its configuration again.
    ///
    /// # Errors
    /// If it has ended.
    pub fn reload(self) -> Result<(), BoxError> {
        Ok(kill_process(self.0, Signal::HUP)?)
    }
}

/// A command that becomes `program` and ends with this process.
///
/// # Errors
/// If this program cannot be found.
pub fn with_parent(program: &Path) -> std::io::Result<Command> {
    let mut command = Command::new(own_program()?);
    command.arg(WITH_PARENT).arg(program);
    Ok(command)
}

/// Becomes the program that `words` name. It ends with the parent of this process, because the
/// parent-death signal survives `exec`.
///
/// # Errors
/// Always: the function returns only if it fails.
pub fn become_program(words: &[String]) -> Result<(), BoxError> {
    let (program, arguments) = words.split_first().ok_or("usage: --with-parent PROGRAM ...")?;
    set_parent_process_death_signal(Some(Signal::TERM))?;
    let error = std::process::Command::new(program).args(arguments).exec();
    Err(format!("{program}: {error}").into())
}

/// Sends a process a signal.
///
/// # Errors
/// If it has ended.
pub fn send(process: &Child, signal: Signal) -> Result<(), BoxError> {
    Ok(kill_process(id(process)?, signal)?)
}

/// The file of this program, to start it again.
///
/// # Errors
/// If the system does not tell.
pub fn own_program() -> std::io::Result<PathBuf> {
    // The link and not the name it leads to: the file may have been rebuilt meanwhile.
    let link = PathBuf::from("/proc/self/exe");
    if link.exists() { Ok(link) } else { std::env::current_exe() }
}

/// Finds a program: by a path, or by a name in the search path and in the folders of servers.
#[must_use]
pub fn find(program: &Path) -> Option<PathBuf> {
    if 1 < program.components().count() {
        return program.is_file().then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn id(process: &Child) -> Result<Pid, BoxError> {
    let id = process.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
    Ok(id.ok_or("the process has ended already")?)
}
