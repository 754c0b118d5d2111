//! The files of the workspace, read once.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// One file and its text.
pub(crate) struct File {
    /// Relative to the root of the workspace, with slashes.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    /// Whether all of it is test code, an example or a bench.
    pub(crate) fn is_test(&self) -> bool {
        let is_under = |folder: &str| {
            self.path.starts_with(&format!("{folder}/"))
                || self.path.contains(&format!("/{folder}/"))
        };
        let is_module_of_tests = self.path.ends_with("/tests.rs");
        is_module_of_tests || is_under("tests") || is_under("benches") || is_under("examples")
    }

    /// The name of its crate under `crates/`, if it is in one.
    pub(crate) fn crate_name(&self) -> Option<&str> {
        self.path.strip_prefix("crates/")?.split('/').next()
    }
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member of the workspace").into()
}

/// All files with this extension, except build output, hidden and generated files, and the fuzz
/// targets, which are a workspace of their own.
pub(crate) fn files(extension: &str) -> Vec<File> {
    let mut files = Vec::new();
    collect(&root(), extension, &mut files);
    files.retain(|file| {
        !file.path.starts_with("fuzz/") && !file.text.starts_with("// This file is @generated")
    });
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// One file, if it exists.
pub(crate) fn file(path: &str) -> Option<String> {
    fs::read_to_string(root().join(path)).ok()
}

/// Panics with all violations of a rule, one per line.
pub(crate) fn assert_none(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

fn collect(folder: &Path, extension: &str, files: &mut Vec<File>) {
    for entry in fs::read_dir(folder).expect("a folder of the workspace") {
        let path = entry.expect("an entry of the folder").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            let is_hidden = name.starts_with('.') && name != ".ci";
            if !is_hidden && name != "target" && name != "node_modules" {
                collect(&path, extension, files);
            }
        } else if path.extension().is_some_and(|found| found == extension) {
            let text = fs::read_to_string(&path).expect("a text file");
            let path = path.strip_prefix(root()).expect("below the root").to_string_lossy();
            files.push(File { path: path.replace('\\', "/"), text });
        }
    }
}
