//! Endpoints from a JSON, YAML or TOML file, read again when it changes.
//!
//! ```yaml
//! - address: 10.0.0.1:80
//!   weight: 3
//!   zone: eu-1a
//! - address: 10.0.0.2:80
//!   priority: 1
//!   metadata: { version: "7" }
//! ```
//!
//! In JSON the same is a list of objects; in TOML it is `[[endpoints]]` tables. In JSON and YAML
//! the list may also stand under the key `endpoints`. Only `address` is required. An unknown key is
//! an error, so that a misspelt `weight` is not silently ignored.
//!
//! The file may be written in place, replaced by a rename, or be a key of a mounted Kubernetes
//! ConfigMap. The directory is watched. The content is also compared every few seconds, for network
//! file systems and for symbolic links that lead elsewhere. Prefer a rename: a file that is written
//! in place can be read half-written, which is reported as an error until the next read.
//!
//! A file that is missing or broken changes nothing: the last good set stays in use, and watchers
//! get an error with the file, the line, the column and what to do. An explicitly empty list is
//! believed. A file without content is broken.
//!
//! ```
//! use evenkeel::core::discover::{Discovery, Update};
//! use evenkeel::discovery::File;
//! use futures_util::StreamExt;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("endpoints.json");
//! std::fs::write(&path, r#"[{"address": "10.0.0.1:80", "weight": 3}]"#)?;
//!
//! let mut watch = File::new(&path)?.watch();
//! assert!(matches!(watch.next().await, Some(Ok(Update::Set(set))) if set[0].weight == 3));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

mod parse;
mod source;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

pub use self::parse::{FileError, Format, MAX_FILE_SIZE, Position, parse};
use self::source::FileSource;
use crate::{settings::follows, watch::Reconnect};

/// Follows a file of endpoints.
///
/// A clone shares the reading of the file. At most [`MAX_FILE_SIZE`] bytes are read and kept.
#[derive(Clone, Debug)]
pub struct File {
    reconnect: Reconnect<FileSource>,
}

/// The extension of a file does not name a known format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the name of {} says no format that is built in (name it .json, .yaml, .yml or .toml, and \
     switch on the feature of that name)",
    path.display()
)]
#[non_exhaustive]
pub struct UnknownFormat {
    /// The file.
    pub path: PathBuf,
}

impl File {
    /// Follows the file at `path`. The extension names the format: `.json`, `.yaml`, `.yml`,
    /// `.toml`. The file need not exist yet.
    ///
    /// # Errors
    /// If the extension is another, or the feature for the format is not switched on.
    pub fn new(path: impl AsRef<Path>) -> Result<Self, UnknownFormat> {
        let path = path.as_ref();
        let format = Format::of(path).ok_or_else(|| UnknownFormat { path: path.to_owned() })?;
        Ok(Self::with_format(path, format))
    }

    /// Follows the file at `path` in this format, whatever its extension.
    #[must_use]
    pub fn with_format(path: impl AsRef<Path>, format: Format) -> Self {
        let source = FileSource::new(path.as_ref().to_owned(), format);
        Self { reconnect: Reconnect::new(source) }
    }

    /// Sets how often the content is compared even if no change was noticed. Default: 5 s.
    ///
    /// A short one reads the file all the time; with a long one, changes on a network file system
    /// are noticed late.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub fn poll_interval(self, interval: Duration) -> Self {
        assert!(Duration::ZERO < interval, "an interval of zero spins");
        self.with(|source| source.poll_interval = interval)
    }

    /// Sets how long changes are collected before the file is read. Default: 50 ms.
    ///
    /// A short one reads a file that is being written in place; a long one delays the news.
    #[must_use]
    pub fn debounce(self, delay: Duration) -> Self {
        self.with(|source| source.debounce = delay)
    }
}

follows!(File by FileSource, with);
