//! Rules for the manifests.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use toml::{Table, Value};

use crate::workspace::{assert_none, file, files};

/// The crates of this workspace that a crate may depend on. Crates that are not listed may depend
/// on all.
const ARROWS: [(&str, &[&str]); 10] = [
    ("evenkeel-core", &[]),
    ("evenkeel-client", &["evenkeel-core", "evenkeel-http", "evenkeel-layers", "evenkeel-metrics"]),
    ("evenkeel-clock", &["evenkeel-core"]),
    ("evenkeel-metrics", &["evenkeel-core"]),
    ("evenkeel-layers", &["evenkeel-clock", "evenkeel-core", "evenkeel-metrics"]),
    ("evenkeel-net", &["evenkeel-core"]),
    ("evenkeel-http", &["evenkeel-clock", "evenkeel-core", "evenkeel-metrics", "evenkeel-net"]),
    ("evenkeel-discovery", &["evenkeel-core", "evenkeel-metrics", "evenkeel-net"]),
    ("evenkeel-redis", &["evenkeel-clock", "evenkeel-core", "evenkeel-metrics", "evenkeel-net"]),
    ("evenkeel-sim", &["evenkeel-core"]),
];

struct Manifest {
    path: String,
    table: Table,
}

impl Manifest {
    fn name(&self) -> &str {
        self.table["package"]["name"].as_str().expect("a name")
    }

    /// The dependencies of one kind, including those of a target.
    fn dependencies(&self, kind: &str) -> Vec<(String, Value)> {
        let mut tables: Vec<&Table> =
            self.table.get(kind).and_then(Value::as_table).into_iter().collect();
        if let Some(targets) = self.table.get("target").and_then(Value::as_table) {
            tables.extend(
                targets.values().filter_map(|target| target.get(kind).and_then(Value::as_table)),
            );
        }
        let entries = tables.into_iter().flatten();
        entries.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

fn root() -> Table {
    file("Cargo.toml").expect("the root manifest").parse().expect("TOML")
}

fn members() -> Vec<Manifest> {
    files("toml")
        .into_iter()
        .filter(|file| file.path.ends_with("/Cargo.toml"))
        .map(|file| Manifest { table: file.text.parse().expect("TOML"), path: file.path })
        .filter(|manifest| manifest.table.contains_key("package"))
        .collect()
}

#[test]
fn siblings_never_import_each_other() {
    let mut broken = Vec::new();
    for manifest in members() {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == manifest.name()) else {
            continue;
        };
        for (name, _) in manifest.dependencies("dependencies") {
            if name.starts_with("evenkeel") && !allowed.contains(&name.as_str()) {
                broken.push(format!("{} depends on {name}", manifest.name()));
            }
        }
    }
    assert_none(
        "crates meet in evenkeel-core, read evenkeel-clock, count in evenkeel-metrics and dial by evenkeel-net",
        &broken,
    );
}

#[test]
fn metrics_are_recorded_in_one_crate() {
    let broken: Vec<_> = members()
        .iter()
        .filter(|manifest| manifest.path.starts_with("crates/"))
        .filter(|manifest| manifest.name() != "evenkeel-metrics")
        .filter(|manifest| {
            manifest.dependencies("dependencies").iter().any(|(name, _)| name == "metrics")
        })
        .map(|manifest| manifest.path.clone())
        .collect();
    assert_none("evenkeel-metrics has the list of all names", &broken);
}

#[test]
fn connections_are_made_in_one_crate() {
    let foreign = ["rustls", "rustls-platform-verifier", "socket2", "tokio-rustls"];
    let mut broken = Vec::new();
    for manifest in members().iter().filter(|manifest| manifest.path.starts_with("crates/")) {
        for (name, _) in manifest.dependencies("dependencies") {
            if manifest.name() != "evenkeel-net" && foreign.contains(&&*name) {
                broken.push(format!("{}: {name}", manifest.path));
            }
        }
    }
    assert_none("evenkeel-net has the one dialer and the one TLS configuration", &broken);
}

#[test]
fn nothing_depends_on_tests_benches_or_examples() {
    let mut broken = Vec::new();
    for manifest in members() {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, _) in manifest.dependencies(kind) {
                if ["evenkeel-tests", "evenkeel-benches", "evenkeel-examples"].contains(&&*name) {
                    broken.push(format!("{} depends on {name}", manifest.path));
                }
            }
        }
    }
    assert_none("leaves of the workspace stay leaves", &broken);
}

#[test]
fn core_needs_no_runtime_no_http_and_no_io() {
    let foreign = ["tokio", "http", "hyper", "tracing", "tower", "futures-util", "mio", "socket2"];
    let core = members().into_iter().find(|manifest| manifest.name() == "evenkeel-core");
    let dependencies = core.expect("there is a core").dependencies("dependencies");
    let broken: Vec<_> = dependencies
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| foreign.contains(&&**name))
        .collect();
    assert_none("core has contracts and mathematics only", &broken);
}

#[test]
fn every_crate_has_the_lints_of_the_workspace() {
    let broken: Vec<_> = members()
        .into_iter()
        .filter(|manifest| {
            let lints = manifest.table.get("lints").and_then(|lints| lints.get("workspace"));
            lints.and_then(Value::as_bool) != Some(true)
        })
        .map(|manifest| manifest.path)
        .collect();
    assert_none("[lints] workspace = true", &broken);
}

#[test]
fn versions_are_in_the_root_manifest_only() {
    let mut broken = Vec::new();
    for manifest in members() {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, value) in manifest.dependencies(kind) {
                let is_inherited = value.get("workspace").and_then(Value::as_bool) == Some(true);
                // A part's examples use the facade, which depends on the part: such a circle must not have a version.
                let is_circle = name == "evenkeel" && kind == "dev-dependencies";
                if !is_inherited && !is_circle {
                    broken.push(format!("{}: {name}", manifest.path));
                }
            }
        }
        for key in ["version", "edition", "rust-version", "license"] {
            let value = manifest.table["package"].get(key);
            if value.is_some_and(|value| value.get("workspace").is_none()) {
                broken.push(format!("{}: package.{key}", manifest.path));
            }
        }
    }
    assert_none("workspace = true", &broken);
}

#[test]
fn every_dependency_of_the_root_manifest_is_there_for_a_crate() {
    let members = members();
    let is_used = |name: &str| {
        members.iter().any(|manifest| {
            ["dependencies", "dev-dependencies", "build-dependencies"]
                .iter()
                .any(|kind| manifest.dependencies(kind).iter().any(|(found, _)| found == name))
        })
    };
    // While crates are being written, the list may be ahead of them.
    if members.iter().any(|manifest| {
        manifest.table["package"].get("description").and_then(Value::as_str) == Some("PLACE")
    }) {
        return;
    }
    let root = root();
    let listed = root["workspace"]["dependencies"].as_table().expect("a table");
    let broken: Vec<_> = listed
        .keys()
        .filter(|name| !name.starts_with("evenkeel") && !is_used(name))
        .cloned()
        .collect();
    assert_none("each dependency earns its place", &broken);
}

#[test]
fn the_lints_forbid_unsafe_code() {
    let root = root();
    assert_eq!(root["workspace"]["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
}

#[test]
fn the_crates_of_this_workspace_are_named_with_its_version() {
    let root = root();
    let version = root["workspace"]["package"]["version"].as_str();
    let mut broken = Vec::new();
    for (name, value) in root["workspace"]["dependencies"].as_table().expect("a table") {
        if name.starts_with("evenkeel") && value.get("version").and_then(Value::as_str) != version {
            broken.push(name.clone());
        }
    }
    assert_none("another version than the workspace", &broken);
}

/// Counts the crates in `cargo tree` for a package, including itself.
fn crates_for(package: &str, edges: &str) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--prefix", "none", "-p", package, "-e", edges])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")])
        .output()
        .expect("cargo");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let lines = String::from_utf8(tree.stdout).expect("text");
    lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn default_features_are_light() {
    let crates = crates_for("evenkeel", "normal");
    assert!(crates.len() <= 90, "{} crates: {crates:?}", crates.len());
}

#[test]
fn what_a_newcomer_runs_first_needs_few_crates() {
    let crates = crates_for("demo", "normal,build");
    assert!(crates.len() <= 150, "{} crates: {crates:?}", crates.len());
    let heavy = ["kube", "tonic", "redis", "plotters", "evenkeel-sim"];
    assert_none(
        "the demo needs none",
        &heavy
            .iter()
            .filter(|name| crates.contains(**name))
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
    );
}

/// Otherwise CI builds them a second time, with other features.
#[test]
fn examples_and_benches_have_the_features_of_the_tests() {
    let features = |selection: &[&str]| {
        let tree = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--offline",
                "--prefix",
                "none",
                "-e",
                "normal,build,dev",
                "-f",
                "{p}|{f}",
            ])
            .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")])
            .args(selection)
            .output()
            .expect("cargo");
        assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
        let lines = String::from_utf8(tree.stdout).expect("text").replace(" (*)", "");
        let mut features = BTreeMap::<String, BTreeSet<String>>::new();
        for line in lines.lines().filter(|line| !line.contains("(proc-macro)")) {
            if let Some((package, names)) = line.split_once('|') {
                features
                    .entry(package.to_owned())
                    .or_default()
                    .extend(names.split(',').map(str::to_owned));
            }
        }
        features
    };
    let tested = features(&[]);
    let all = features(&["--workspace", "--exclude", "evenkeel-benches"]);
    let differ = |(package, names): &(&String, &BTreeSet<String>)| {
        all.get(*package).is_some_and(|all| all != *names)
    };
    let broken: Vec<_> = tested.iter().filter(differ).map(|(package, _)| package.clone()).collect();
    assert_none("tests/Cargo.toml asks for what examples and benches want", &broken);
}
