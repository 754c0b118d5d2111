//! What the documents say must be so.

use std::collections::BTreeSet;

use toml::Table;

use crate::workspace::{assert_none, file, files};

fn package(key: &str) -> String {
    let root: Table = file("Cargo.toml").expect("the root manifest").parse().expect("TOML");
    root["workspace"]["package"][key].as_str().expect("a text").to_owned()
}

#[test]
fn versions_in_documents_are_those_of_the_crates() {
    let version = package("version");
    let short = version.rsplit_once('.').map_or(&*version, |(short, _)| short).to_owned();
    let mut broken = Vec::new();
    for document in files("md").into_iter().chain(files("rs")).filter(|file| !file.is_test()) {
        if document.path.ends_with("CHANGELOG.md") {
            continue;
        }
        for (number, line) in document.text.lines().enumerate() {
            let line = line.trim_start_matches(['/', '!', ' ', '#']);
            let Some((name, value)) = line.split_once('=') else { continue };
            let name = name.trim();
            let is_ours = name == "evenkeel" || name.starts_with("evenkeel-");
            let quoted = value.split('"').nth(1).filter(|_| {
                let value = value.trim();
                value.starts_with('"') || value.contains("version = ")
            });
            let Some(quoted) = quoted.filter(|_| is_ours) else { continue };
            if quoted != version && quoted != short {
                broken.push(format!("{}:{}: {line}", document.path, number + 1));
            }
        }
    }
    assert_none(&format!("the version is {version}"), &broken);
}

#[test]
fn the_msrv_in_documents_is_that_of_the_crates() {
    let msrv = package("rust-version");
    let mut broken = Vec::new();
    for document in files("md") {
        if document.path.ends_with("CHANGELOG.md") {
            continue;
        }
        for (number, line) in document.text.lines().enumerate() {
            let lower = line.to_lowercase();
            let Some(at) = ["msrv", "minimum supported rust", "rust-version"]
                .iter()
                .find_map(|phrase| lower.find(phrase))
            else {
                continue;
            };
            let named: Vec<&str> = line[at..]
                .split(|c: char| !c.is_ascii_digit() && c != '.')
                .map(|word| word.trim_matches('.'))
                .filter(|word| word.starts_with("1.") && 3 < word.len())
                .collect();
            if !named.is_empty() && !named.iter().any(|named| named.starts_with(&msrv)) {
                broken.push(format!("{}:{}: {line}", document.path, number + 1));
            }
        }
    }
    assert_none(&format!("the MSRV is {msrv}"), &broken);
}

#[test]
fn the_changelog_knows_the_version() {
    let Some(changelog) = file("CHANGELOG.md") else { return };
    let version = package("version");
    assert!(
        changelog.contains(&version) || changelog.contains("Unreleased"),
        "{version} is missing"
    );
}

/// A line such as "`evenkeel-http` → `evenkeel-core`" must be true of the manifests.
#[test]
fn the_arrows_in_architecture_are_those_of_the_manifests() {
    let Some(architecture) = file("ARCHITECTURE.md") else { return };
    let mut broken = Vec::new();
    for line in architecture.lines() {
        let Some((from, to)) = line.split_once('→').or_else(|| line.split_once("->")) else {
            continue;
        };
        let from: Vec<_> = crate_names(from).collect();
        for (from, to) in from.iter().flat_map(|&from| crate_names(to).map(move |to| (from, to))) {
            let manifest = file(&format!("crates/{from}/Cargo.toml"));
            let Some(manifest) = manifest else {
                broken.push(format!("{from} does not exist"));
                continue;
            };
            let table: Table = manifest.parse().expect("TOML");
            let depends = table.get("dependencies").is_some_and(|table| table.get(to).is_some());
            if !depends {
                broken.push(format!("{from} does not depend on {to}"));
            }
        }
    }
    assert_none("arrows that are not there", &broken);
}

#[test]
fn architecture_names_every_crate() {
    let Some(architecture) = file("ARCHITECTURE.md") else { return };
    let names: BTreeSet<String> =
        files("rs").iter().filter_map(|file| file.crate_name().map(str::to_owned)).collect();
    let broken: Vec<_> = names.into_iter().filter(|name| !architecture.contains(name)).collect();
    assert_none("crates that ARCHITECTURE.md does not name", &broken);
}

fn crate_names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .filter(|word| *word == "evenkeel" || word.starts_with("evenkeel-"))
}

#[test]
fn every_policy_has_a_file_a_name_and_a_line_in_the_table() {
    let policies = file("crates/evenkeel-core/src/policy/mod.rs").expect("policies");
    let names: BTreeSet<&str> = evenkeel_core::policy::NAMES.into_iter().collect();
    let mut broken = Vec::new();
    for name in &names {
        let room = format!("crates/evenkeel-core/src/policy/{name}");
        if file(&format!("{room}.rs")).or_else(|| file(&format!("{room}/mod.rs"))).is_none() {
            broken.push(format!("{name} has no file"));
        }
        if !policies.contains(&format!("//! | [`{name}`](")) {
            broken.push(format!("{name} is missing in the table"));
        }
    }
    for file in files("rs") {
        let Some(name) = file.path.strip_prefix("crates/evenkeel-core/src/policy/") else {
            continue;
        };
        let name = name.trim_end_matches(".rs").trim_end_matches("/mod");
        if file.text.contains("impl Policy for") && name != "mod" && !names.contains(name) {
            broken.push(format!("{name} is not in NAMES"));
        }
    }
    assert_none("policy/NAME.rs, NAMES and the table agree", &broken);
}
