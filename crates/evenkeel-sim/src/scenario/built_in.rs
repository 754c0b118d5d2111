//! The built-in scenarios, from the folder `scenarios`.

use super::{Scenario, ScenarioError};

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        /// The names and texts of the built-in scenarios.
        pub const BUILT_IN: &[(&str, &str)] = &[
            $(($name, include_str!(concat!("../../scenarios/", $name, ".toml")))),*
        ];
    };
}

built_in!(
    "antagonists",
    "cold_caches",
    "equal",
    "fast_failing",
    "flapping",
    "heavy_tail",
    "large",
    "medium",
    "newcomers",
    "noisy",
    "small",
    "subsets",
    "tail",
    "two_speeds",
    "zones",
);

impl Scenario {
    /// The built-in scenario of this name.
    ///
    /// # Errors
    /// If there is no such scenario.
    pub fn built_in(name: &str) -> Result<Self, ScenarioError> {
        let found = BUILT_IN.iter().find(|(known, _)| *known == name);
        let Some((_, text)) = found else {
            let names: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            return Err(ScenarioError {
                file: name.to_owned(),
                line: None,
                problem: format!("no such scenario; there are {}", names.join(", ")),
            });
        };
        Self::parse(&format!("scenarios/{name}.toml"), text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_scenarios_that_come_with_the_program_are_valid() {
        for (name, _) in BUILT_IN {
            let scenario = Scenario::built_in(name).unwrap();
            assert!(!scenario.about.is_empty(), "{name} says nothing about itself");
        }
    }

    #[test]
    fn each_file_of_the_folder_comes_with_the_program() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let named: Vec<_> = BUILT_IN.iter().map(|(name, _)| format!("{name}.toml")).collect();
        assert_eq!(files, named);
    }
}
