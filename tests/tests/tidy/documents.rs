//! The documents agree with the code.

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

/// The headings are `Unreleased`, if it has entries, and then versions with their dates. The newest
/// version is that of the crates once they were published.
#[test]
fn the_changelog_is_in_order_and_knows_the_version() {
    let changelog = file("CHANGELOG.md").expect("a changelog");
    let sections: Vec<(&str, &str)> = changelog
        .split("\n## ")
        .skip(1)
        .map(|section| section.split_once('\n').unwrap_or((section, "")))
        .collect();
    let mut broken = Vec::new();
    for (number, (heading, text)) in sections.iter().enumerate() {
        let version = heading.trim_start_matches('[').split([']', ' ']).next().unwrap_or_default();
        let is_version = version.split('.').filter(|part| part.parse::<u64>().is_ok()).count() == 3;
        let has_date = heading.split_once(" - ").is_some_and(|(_, date)| date.len() == 10);
        if !(is_version && has_date || number == 0 && *heading == "Unreleased") {
            broken.push(format!("`## {heading}` is no version with a date"));
        }
        if !text.lines().any(|line| line.starts_with("- ")) {
            broken.push(format!("`## {heading}` has no entry"));
        }
        let mut kinds: Vec<_> = text.lines().filter(|line| line.starts_with("### ")).collect();
        let all = kinds.len();
        kinds.sort_unstable();
        kinds.dedup();
        if kinds.len() < all {
            broken.push(format!("`## {heading}` has a kind of change twice"));
        }
    }
    let newest = sections.iter().find(|(heading, _)| *heading != "Unreleased");
    let version = package("version");
    if newest.is_some_and(|(heading, _)| !heading.contains(&version)) {
        broken.push(format!("the newest version is not {version}"));
    }
    if sections.is_empty() {
        broken.push("there is no section".to_owned());
    }
    assert_none("CHANGELOG.md", &broken);
}

/// Parses "`evenkeel-http` → `evenkeel-core`, `evenkeel-metrics`": the complete list of a crate's
/// dependencies.
#[test]
fn the_arrows_in_architecture_are_those_of_the_manifests() {
    let architecture = file("ARCHITECTURE.md").expect("ARCHITECTURE.md");
    let drawn: BTreeSet<(String, String)> = architecture
        .lines()
        .filter_map(|line| line.split_once('→'))
        .flat_map(|(from, to)| {
            let from: Vec<_> = crate_names(from).collect();
            from.into_iter().flat_map(move |from| crate_names(to).map(move |to| (from, to)))
        })
        .map(|(from, to)| (from.to_owned(), to.to_owned()))
        .collect();
    let found: BTreeSet<(String, String)> = files("toml")
        .iter()
        .filter(|file| file.path.starts_with("crates/"))
        .filter_map(|file| Some((file.crate_name()?.to_owned(), file.text.parse::<Table>().ok()?)))
        .flat_map(|(from, table)| {
            let dependencies = table.get("dependencies").and_then(toml::Value::as_table);
            let names: Vec<_> = dependencies.into_iter().flat_map(Table::keys).cloned().collect();
            names
                .into_iter()
                .filter(|to| to.starts_with("evenkeel"))
                .map(move |to| (from.clone(), to))
        })
        .collect();

    let show = |what: &str, (from, to): &(String, String)| format!("{what}: {from} → {to}");
    let broken: Vec<_> = drawn
        .difference(&found)
        .map(|arrow| show("in ARCHITECTURE.md only", arrow))
        .chain(found.difference(&drawn).map(|arrow| show("in the manifests only", arrow)))
        .collect();
    assert!(!found.is_empty(), "the manifests are read");
    assert_none("arrows of ARCHITECTURE.md and of the manifests", &broken);
}

#[test]
fn what_architecture_points_at_is_there() {
    let Some(architecture) = file("ARCHITECTURE.md") else { return };
    let sources = files("rs");
    let mut broken = Vec::new();
    // Every second piece stands between backticks.
    for span in architecture.split('`').skip(1).step_by(2) {
        let is_there = if let Some((name, item)) = span.split_once(".rs: ") {
            let item = item.rsplit("::").next().unwrap_or(item);
            let ends = [format!("fn {item}("), format!("fn {item}<"), format!("struct {item}<")];
            sources.iter().any(|file| {
                file.path.ends_with(&format!("/{name}.rs"))
                    && ends.iter().any(|end| file.text.contains(end))
            })
        } else if span.starts_with("crates/") && span.ends_with(".rs") {
            span.contains("NAME") || file(span).is_some()
        } else {
            true
        };
        if !is_there {
            broken.push(span.to_owned());
        }
    }
    assert_none("ARCHITECTURE.md points at what is there", &broken);
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
        if file(&format!("crates/evenkeel-core/src/policy/{name}.rs")).is_none() {
            broken.push(format!("{name} has no file"));
        }
        if !policies.contains(&format!("//! | [`{name}`](")) {
            broken.push(format!("{name} is missing in the table"));
        }
    }
    let mut seen = 0;
    for file in files("rs") {
        let Some(name) = file.path.strip_prefix("crates/evenkeel-core/src/policy/") else {
            continue;
        };
        let name = name.trim_end_matches(".rs").trim_end_matches("/mod");
        for line in file.text.lines().filter(|_| name != "mod" && !file.is_test()) {
            // A policy, or a wrapper around another policy.
            let Some((head, _)) = line.split_once("Policy for ") else { continue };
            if head != "impl " && head != "impl<P: Policy> " {
                continue;
            }
            seen += 1;
            if !names.contains(name) {
                broken.push(format!("{name} is not in NAMES"));
            }
        }
    }
    assert_eq!(seen, names.len(), "each name has one `impl Policy`");
    assert_none("policy/NAME.rs, NAMES and the table agree", &broken);
}
