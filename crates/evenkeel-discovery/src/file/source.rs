//! When an endpoint file is read, and what is done with its content.

use std::{
    ffi::OsStr,
    fs, io,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use evenkeel_core::BoxError;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher, event::AccessKind};
use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::parse::{FileError, Format, MAX_FILE_SIZE, parse};
use crate::watch::{Session, Source};

/// A healthy disk answers long before this; an unreachable network file system never does.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub(super) struct FileSource {
    path: PathBuf,
    format: Format,
    pub(super) poll_interval: Duration,
    pub(super) debounce: Duration,
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("the file cannot be read")]
    Read(#[source] io::Error),
    #[error("not a regular file")]
    NotAFile,
    #[error("the file is larger than {MAX_FILE_SIZE} bytes")]
    TooLarge,
    #[error("byte {0} is not UTF-8; save the file as UTF-8")]
    NotText(usize),
    #[error("the file is not valid")]
    Broken(#[source] FileError),
    #[error("the file was not read within {READ_TIMEOUT:?}")]
    Slow,
}

impl FileSource {
    pub(super) fn new(path: PathBuf, format: Format) -> Self {
        let poll_interval = Duration::from_secs(5);
        Self { path, format, poll_interval, debounce: Duration::from_millis(50) }
    }

    /// The directory in which a rename or a swapped link becomes visible.
    ///
    /// The file itself cannot be watched: a watch follows the inode, and the new file has another.
    fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        }
    }

    /// A watcher for changes; none if the system has none, which leaves the poll.
    fn watcher(&self, changed: &Arc<Notify>) -> Option<RecommendedWatcher> {
        let (changed, name) = (changed.clone(), self.path.file_name().map(OsStr::to_owned));
        let on_event = move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| concerns(&event, name.as_deref())) {
                changed.notify_one();
            }
        };
        notify::recommended_watcher(on_event)
            .inspect_err(|error| {
                tracing::warn!(path = %self.path.display(), %error, "the file is only polled");
            })
            .ok()
    }

    async fn read(&self, session: &mut Session) -> Result<Vec<u8>, ReadError> {
        let path = self.path.clone();
        let mut reading = spawn_blocking(move || read_bounded(&path));
        let read = match timeout(READ_TIMEOUT, &mut reading).await {
            Ok(read) => read,
            Err(_) => {
                session.fail(ReadError::Slow);
                // Waits for the read under way. Starting again at every try would hold one more
                // thread each time.
                reading.await
            }
        };
        read.unwrap_or_else(|panicked| Err(ReadError::Read(panicked.into())))
    }

    fn parse(&self, content: &[u8]) -> Result<Vec<evenkeel_core::endpoint::Endpoint>, ReadError> {
        let text = std::str::from_utf8(content)
            .map_err(|error| ReadError::NotText(error.valid_up_to() + 1))?;
        parse(text, self.format).map_err(ReadError::Broken)
    }
}

impl Source for FileSource {
    fn origin(&self) -> String {
        format!("file {}", self.path.display())
    }

    async fn session(&mut self, session: &mut Session) -> Result<(), BoxError> {
        let changed = Arc::<Notify>::default();
        let mut watcher = self.watcher(&changed);
        let mut last = None;
        loop {
            if let Some(watcher) = &mut watcher {
                // Each time again, because the directory may have been replaced by another of
                // the same name. An error means that it does not exist; the poll then finds it when
                // it appears.
                let _ = watcher.watch(self.folder(), RecursiveMode::NonRecursive);
            }
            match self.read(session).await {
                Ok(content) if last.as_ref() == Some(&content) => {}
                Ok(content) => {
                    match self.parse(&content) {
                        Ok(endpoints) => session.set(endpoints),
                        Err(error) => session.fail(error),
                    }
                    last = Some(content);
                }
                Err(error) => {
                    session.fail(error);
                    last = None;
                }
            }
            tokio::select! {
                () = session.wait(self.poll_interval) => {}
                () = changed.notified() => sleep(self.debounce).await,
            }
        }
    }
}

/// Whether an event in the directory can mean new content of the file with this name.
fn concerns(event: &notify::Event, name: Option<&OsStr>) -> bool {
    // Opening or reading a file is no change; it may have been this very source.
    if matches!(event.kind, EventKind::Access(kind) if !matches!(kind, AccessKind::Close(_))) {
        return false;
    }
    // The files of a ConfigMap are links through `..data`, which an update replaces.
    event.paths.is_empty()
        || event
            .paths
            .iter()
            .any(|path| path.file_name() == name || path.file_name() == Some(OsStr::new("..data")))
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, ReadError> {
    // Checked before opening: opening a pipe blocks until it has a writer.
    if !fs::metadata(path).map_err(ReadError::Read)?.is_file() {
        return Err(ReadError::NotAFile);
    }
    let file = fs::File::open(path).map_err(ReadError::Read)?;
    let mut content = vec![];
    file.take(MAX_FILE_SIZE as u64 + 1).read_to_end(&mut content).map_err(ReadError::Read)?;
    if MAX_FILE_SIZE < content.len() {
        return Err(ReadError::TooLarge);
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use notify::event::{AccessMode, CreateKind};

    use super::*;

    #[test]
    fn only_events_that_can_change_the_content_cause_another_read() {
        let concerns = |kind, name: &str| {
            let event = notify::Event::new(kind).add_path(Path::new("/etc/app").join(name));
            concerns(&event, Some(OsStr::new("endpoints.json")))
        };
        let created = EventKind::Create(CreateKind::File);
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let opened = EventKind::Access(AccessKind::Open(AccessMode::Any));

        assert!(concerns(created, "endpoints.json"));
        assert!(concerns(closed, "endpoints.json"));
        assert!(concerns(created, "..data"));
        assert!(!concerns(created, "other.json"), "a busy directory is not a busy file");
        assert!(!concerns(opened, "endpoints.json"), "reading must not lead to reading");
    }
}
