//! Finds the installed real servers. `.ci/get-servers` touches this file after installing one.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for name in ["CI", "EVENKEEL_SERVERS", "XDG_CACHE_HOME", "HOME", "PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = ["redis-server", "named", "pdns_server"]
        .into_iter()
        .filter(|program| env::split_paths(&path).any(|folder| folder.join(program).is_file()));
    let found: Vec<String> = on_path.map(str::to_owned).chain(kept()).collect();
    println!("cargo::rustc-env=SERVERS_FOUND={}", found.join(" "));
    // In CI a missing server is an error, and no test is left out.
    println!("cargo::rustc-env=IS_CI={}", env::var_os("CI").is_some());
}

/// The folder in which `.ci/get-servers` keeps servers.
fn kept() -> Vec<String> {
    let folder = |name: &str| env::var_os(name).map(PathBuf::from);
    let cache = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    let kept = folder("EVENKEEL_SERVERS").or_else(|| Some(cache()?.join("evenkeel/servers")));
    let entries = kept.and_then(|kept| fs::read_dir(kept).ok()).into_iter().flatten().flatten();
    entries
        .filter(|entry| Path::new(&entry.path()).join("usr/bin").is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.ends_with(".part"))
        .collect()
}
