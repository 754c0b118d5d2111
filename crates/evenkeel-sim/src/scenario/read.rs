//! Reads scenarios from files and reports what is wrong with them.

use std::{fs, path::Path};

use super::Scenario;

/// What is wrong with a scenario, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {problem}", line.map(|line| format!(":{line}")).unwrap_or_default())]
#[non_exhaustive]
pub struct ScenarioError {
    /// The name of the file.
    pub file: String,
    /// The line, if known.
    pub line: Option<usize>,
    /// What is wrong, and what to do.
    pub problem: String,
}

impl Scenario {
    /// Reads a scenario from a file.
    ///
    /// # Errors
    /// If the file cannot be read or the scenario is not valid.
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let file = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|error| ScenarioError {
            file: file.clone(),
            line: None,
            problem: format!(
                "{error}; name a scenario file, or one that `evenkeel-sim list` shows"
            ),
        })?;
        Self::parse(&file, &text)
    }

    /// Reads a scenario from a text. Errors call it `file`.
    ///
    /// # Errors
    /// If the scenario is not valid.
    pub fn parse(file: &str, text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text).map_err(|error| ScenarioError {
            file: file.to_owned(),
            line: error.span().map(|span| line_at(text, span.start)),
            problem: error.message().trim().replace('\n', ", "),
        })?;
        match scenario.check() {
            Ok(()) => Ok(scenario),
            Err(problem) => Err(ScenarioError {
                file: file.to_owned(),
                line: line_of(text, &problem.section, problem.number, problem.key),
                problem: problem.text,
            }),
        }
    }
}

fn line_at(text: &str, byte: usize) -> usize {
    text[..byte.min(text.len())].matches('\n').count() + 1
}

/// The line of a key in the `number`-th section of this name, or of that section's header.
fn line_of(text: &str, section: &str, number: usize, key: &str) -> Option<usize> {
    let (mut current, mut seen, mut head) = (String::new(), 0, None);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            current = line.trim_matches(['[', ']']).trim().to_owned();
            if current == section {
                seen += 1;
            }
            if current == section && seen == number + 1 {
                head = Some(index + 1);
            }
            continue;
        }
        let is_here = current == section && (section.is_empty() || seen == number + 1);
        let name = line.split_once('=').map(|(name, _)| name.trim());
        if is_here && name == Some(key) {
            return Some(index + 1);
        }
    }
    head
}
