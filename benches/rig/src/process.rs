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

/// Says that this process is to become another: `--with-parent PROGRAM ...`.
pub const WITH_PARENT: &str = "--with-parent";

/// By then a process that was started answers, or one that was told to end has ended.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Another program, which is ended as it wants to be, so that it ends its own children.
#[derive(Debug)]
pub struct Companion {
    process: Child,
}

impl Companion {
    /// Starts `program`, which ends with this process at the latest, and says nothing.
    ///
    /// # Errors
    /// If this program cannot be started once more.
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

    /// Its id, to signal it by while it is owned elsewhere.
    ///
    /// # Errors
    /// If it has ended.
    pub fn id(&self) -> Result<CompanionId, BoxError> {
        Ok(CompanionId(id(&self.process)?))
    }

    /// Asks it to end, and waits until it has.
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

/// Where a trial breaks off, nothing stays behind.
impl Drop for Companion {
    fn drop(&mut self) {
        _ = send(&self.process, Signal::TERM);
    }
}

/// The process of a companion.
#[derive(Clone, Copy, Debug)]
pub struct CompanionId(Pid);

impl CompanionId {
    /// Has it read its configuration again.
    ///
    /// # Errors
    /// If it has ended.
    pub fn reload(self) -> Result<(), BoxError> {
        Ok(kill_process(self.0, Signal::HUP)?)
    }
}

/// A command that becomes `program`, which ends with this process.
///
/// # Errors
/// If this program cannot be found.
pub fn with_parent(program: &Path) -> std::io::Result<Command> {
    let mut command = Command::new(own_program()?);
    command.arg(WITH_PARENT).arg(program);
    Ok(command)
}

/// Becomes the program that `words` name, which ends with the parent of this process: what a process asks
/// for in this respect outlives its becoming another.
///
/// # Errors
/// Always, since it comes back only where it fails.
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

/// The file of this program, to start it once more.
///
/// # Errors
/// If the system does not say.
pub fn own_program() -> std::io::Result<PathBuf> {
    // Not its name: the file may have been built anew meanwhile.
    let link = PathBuf::from("/proc/self/exe");
    if link.exists() { Ok(link) } else { std::env::current_exe() }
}

/// Finds a program: a path, or a name in the search path and where servers are kept.
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
