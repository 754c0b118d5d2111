//! The documents agree with the code.

use std::collections::BTreeSet;

use evenkeel_core::policy::{BUILT_IN, Basis, laws::Spread, names};
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
fn everything_that_architecture_names_exists() {
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

/// The rows of a table in the documentation of a module, each with its cells, that begin with a
/// name that links to a policy.
fn rows_of_policies<'a>(text: &'a str, link: &str) -> Vec<(&'a str, Vec<&'a str>)> {
    let row = |line: &'a str| {
        let cells: Vec<&str> = line.strip_prefix("//! | ")?.split(" | ").collect();
        let (name, target) = cells[0].strip_prefix("[`")?.split_once("`](")?;
        target.starts_with(link).then_some((name, cells))
    };
    text.lines().filter_map(row).collect()
}

#[test]
fn the_tables_of_policies_are_those_of_the_list() {
    let core = file("crates/evenkeel-core/src/policy/mod.rs").expect("policies");
    let rows = rows_of_policies(&core, "");
    let told: Vec<_> = rows.iter().map(|(name, _)| *name).collect();
    let names: Vec<_> = names().collect();
    assert_eq!(told, names, "policy/mod.rs has a row for each policy, in order");
    for ((name, cells), policy) in rows.iter().zip(BUILT_IN).filter(|(_, policy)| !policy.wraps()) {
        let weights = match (policy.basis, policy.spread) {
            (Basis::Reports, _) => "reported",
            (_, Spread::ByWeight | Spread::Roughly) => "yes",
            _ => "no",
        };
        assert_eq!(cells[2], weights, "whether {name} goes by weights");
    }

    let facade = file("crates/evenkeel/src/lib.rs").expect("the facade");
    let rows = rows_of_policies(&facade, "core::policy::");
    let told: BTreeSet<_> = rows.iter().map(|(name, _)| *name).collect();
    assert_eq!(told, names.into_iter().collect(), "the facade has a row for each policy");
}

#[test]
fn every_policy_has_a_file_and_is_in_the_list() {
    const FOLDER: &str = "crates/evenkeel-core/src/policy/";
    let (mut seen, mut broken) = (0, Vec::new());
    for file in files("rs") {
        let Some(name) = file.path.strip_prefix(FOLDER).filter(|_| !file.is_test()) else {
            continue;
        };
        let name = name.trim_end_matches(".rs");
        // A policy, or one that wraps another.
        let heads = ["impl Policy for ", "impl<P: Policy> Policy for "];
        if !file.text.lines().any(|line| heads.iter().any(|head| line.starts_with(head))) {
            continue;
        }
        // The laws have one of their own.
        if names().any(|known| known == name) {
            seen += 1;
        } else if !name.starts_with("laws/") {
            broken.push(format!("{name} is not in the list"));
        }
    }
    assert_none("policy/NAME.rs is in policy/built_in.rs", &broken);
    assert_eq!(seen, BUILT_IN.len(), "each of the list is policy/NAME.rs");
}
