//! The signals that begin a drain, and the one that interrupts it.

use std::io;

/// Listens from its construction on, so that no signal is missed between two steps.
pub(super) struct Signals {
    /// `None` if signals are not wanted.
    heard: Option<Heard>,
    is_impatient: bool,
}

impl Signals {
    pub(super) fn new(are_wanted: bool) -> io::Result<Self> {
        let heard = if are_wanted { Some(Heard::new()?) } else { None };
        Ok(Self { heard, is_impatient: false })
    }

    /// Waits for SIGTERM or SIGINT.
    pub(super) async fn begin(&mut self) {
        match &mut self.heard {
            Some(heard) => heard.either().await,
            None => std::future::pending().await,
        }
    }

    /// Waits for a SIGINT after the drain has begun. Returns at once if it has come already.
    ///
    /// SIGTERM is not waited for: supervisors send it more than once.
    pub(super) async fn impatience(&mut self) {
        match &mut self.heard {
            Some(heard) if !self.is_impatient => heard.interrupt().await,
            Some(_) => {}
            None => std::future::pending().await,
        }
        self.is_impatient = true;
    }
}

#[cfg(unix)]
struct Heard {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Heard {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn either(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    async fn interrupt(&mut self) {
        self.interrupt.recv().await;
    }
}

#[cfg(not(unix))]
struct Heard;

#[cfg(not(unix))]
impl Heard {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn either(&mut self) {
        self.interrupt().await;
    }

    async fn interrupt(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}
