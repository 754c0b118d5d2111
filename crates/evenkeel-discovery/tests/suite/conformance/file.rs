//! A file that configuration management writes.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use evenkeel_discovery::File;
use serde_json::json;
use tempfile::TempDir;

use crate::conformance::{
    harness::{Harness, Instance, State},
    watching::Watching,
};

pub(crate) struct OneFile {
    path: PathBuf,
    file: File,
    now: Vec<Instance>,
    _folder: TempDir,
}

impl Harness for OneFile {
    const HAS_TIERS: bool = true;

    type Source = File;

    async fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("endpoints.json");
        let file = File::new(&path).unwrap().poll_interval(Duration::from_millis(200));
        let mut file = Self { path, file, now: vec![], _folder: folder };
        file.set(&[]).await;
        Some(file)
    }

    fn discovery(&self) -> File {
        self.file.clone()
    }

    async fn set(&mut self, instances: &[Instance]) {
        self.now = instances.to_vec();
        replace(&self.path, &text(instances));
    }

    /// The file is written in two steps, as by editors and `>`.
    async fn blink(&mut self) {
        let mut seen = Watching::new(&self.file);
        fs::write(&self.path, "").unwrap();
        seen.until_failure().await;
        fs::write(&self.path, &text(&self.now)[..20]).unwrap();
        seen.until_failure().await;
        fs::write(&self.path, text(&self.now)).unwrap();
    }

    /// The file is removed for a while, and then replaced by another.
    async fn lose_history(&mut self, now: &[Instance]) {
        let mut seen = Watching::new(&self.file);
        fs::remove_file(&self.path).unwrap();
        seen.until_failure().await;
        self.set(now).await;
    }

    /// The file is replaced by an older one.
    async fn go_back(&mut self, now: &[Instance]) {
        self.now = now.to_vec();
        let new = self.path.with_extension("new");
        fs::write(&new, text(now)).unwrap();
        let file = fs::File::options().write(true).open(&new).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(86_400)).unwrap();
        fs::rename(new, &self.path).unwrap();
    }

    async fn fail(&mut self) {
        replace(&self.path, "{ this is no list");
    }

    async fn mend(&mut self) {
        replace(&self.path, &text(&self.now));
    }
}

fn text(instances: &[Instance]) -> String {
    let entry = |instance: &Instance| {
        let weight = if instance.state == State::Draining { 0 } else { instance.weight };
        let mut entry = json!({ "address": instance.address, "weight": weight,
            "priority": instance.tier });
        if let Some(note) = instance.note {
            entry["metadata"] = json!({ "note": note });
        }
        entry
    };
    serde_json::Value::from(instances.iter().map(entry).collect::<Vec<_>>()).to_string()
}

fn replace(path: &std::path::Path, content: &str) {
    let new = path.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(new, path).unwrap();
}
