//! The program as a user runs it.

use std::{fs, process::Command};

fn run(arguments: &[&str]) -> (bool, String, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_evenkeel-sim")).args(arguments).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it prints text");
    (output.status.success(), text(output.stdout), text(output.stderr))
}

const SCENARIO: &str = "name = 'mine'\n[load]\nutilization = 0.5\ncalls = 500\n\
                        [work]\nmean = '1ms'\n[[servers]]\ncount = 3\n";

#[test]
fn a_custom_scenario_gives_a_table_files_and_charts() {
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (folder.path().join("mine.toml"), folder.path().join("out"));
    fs::write(&file, SCENARIO).unwrap();

    let arguments =
        ["run", file.to_str().unwrap(), "--policies", "p2c,random", "--out", out.to_str().unwrap()];
    let (is_well, table, _) = run(&arguments);

    assert!(is_well);
    assert_eq!(table.lines().count(), 3, "{table}");
    for name in
        ["table.csv", "series.csv", "report.json", "latency.svg", "latency.png", "over_time.svg"]
    {
        assert!(out.join(name).exists(), "{name}");
    }
}

#[test]
fn an_error_names_the_file_the_line_and_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.toml");
    for (from, to, line, says) in [
        ("calls = 500", "calls = -5", 4, "invalid value"),
        ("0.5", "-0.5", 3, "a number above 0"),
        ("'1ms'", "'1 parsec'", 6, "a duration such as"),
        ("count = 3", "count = 0", 8, "from 1 to"),
        ("count = 3", "cuont = 3", 8, "unknown field"),
        ("utilization = 0.5", "", 2, "write one of rate"),
        ("name = 'mine'", "name = 'mine'\npolicies = ['best']", 2, "there are round_robin"),
        ("count = 3", "count = 3\nfaults = [{ kind = 'hangs' }]", 9, "deadline"),
    ] {
        fs::write(&file, SCENARIO.replace(from, to)).unwrap();

        let (is_well, _, error) = run(&["run", file.to_str().unwrap(), "--quiet"]);

        assert!(!is_well, "{to}");
        let place = format!("mine.toml:{line}: ");
        assert!(error.contains(&place) && error.contains(says), "{to}: {error}");
    }
}

#[test]
fn an_unknown_name_lists_the_names_that_exist() {
    let (is_well, _, error) = run(&["run", "nothing"]);
    assert!(!is_well && error.contains("fast_failing"), "{error}");
    let (is_well, _, error) = run(&["run", "equal", "--policies", "best"]);
    assert!(!is_well && error.contains("peak_ewma"), "{error}");
    let (is_well, list, _) = run(&["list"]);
    assert!(is_well && list.contains("prequal") && list.contains("two_speeds"));
}
