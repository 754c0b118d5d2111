//! The simulator's command line: see `evenkeel-sim --help`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use evenkeel_sim::{
    chart, policies,
    report::{Report, series_csv, to_csv, to_table},
    run::{self, Job, run_all},
    scenario::{BUILT_IN, Scenario, Time},
    studies::{self, Studio},
};

/// Simulates fleets with evenkeel's own policies and health machines: virtual time, one seed, no sockets.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a scenario with each of several policies.
    Run(Run),
    /// Makes the tables and charts of a document: fast_failing, which_policy, prequal, scale, or all.
    Study(Study),
    /// Lists the policies and the built-in scenarios.
    List,
}

#[derive(Debug, Args)]
struct Run {
    /// A file, or the name of a built-in scenario.
    scenario: String,
    /// The policies, by name. Default: those of the scenario, or all that balance and need no key.
    #[arg(long, value_delimiter = ',')]
    policies: Vec<String>,
    /// The seed of all random numbers.
    #[arg(long)]
    seed: Option<u64>,
    /// How many calls are made.
    #[arg(long)]
    calls: Option<u64>,
    /// The format of the result.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// A folder for the result as CSV and JSON, and for charts as SVG and PNG.
    #[arg(long)]
    out: Option<PathBuf>,
    /// How many runs are made at a time. Default: one per core.
    #[arg(long)]
    threads: Option<usize>,
    /// Hides the progress bar.
    #[arg(long)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct Study {
    /// The document: fast_failing, which_policy, prequal, scale, or all.
    name: String,
    /// The folder of the documents. Their tables and SVG charts are replaced.
    #[arg(long, default_value = "docs/simulation")]
    out: PathBuf,
    /// A folder for the charts as PNG.
    #[arg(long)]
    png: Option<PathBuf>,
    /// Makes a tenth of the calls, to see that it works.
    #[arg(long)]
    quick: bool,
    /// How many runs are made at a time. Default: one per core.
    #[arg(long)]
    threads: Option<usize>,
    /// Hides the progress bar.
    #[arg(long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Table,
    Markdown,
    Csv,
    Json,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(arguments) => run(arguments),
        Command::Study(arguments) => study(arguments),
        Command::List => {
            list();
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn study(arguments: Study) -> Result<(), Failure> {
    let studio = Studio {
        out: arguments.out,
        png: arguments.png,
        is_quick: arguments.quick,
        threads: arguments.threads.unwrap_or_else(run::threads).max(1),
        is_quiet: arguments.quiet,
    };
    studies::make(&arguments.name, &studio)
}

fn list() {
    println!(
        "policies that ship: {}",
        evenkeel_core::policy::names().collect::<Vec<_>>().join(", ")
    );
    println!(
        "rules for comparison: {}",
        evenkeel_sim::rules::names().collect::<Vec<_>>().join(", ")
    );
    println!("scenarios:");
    for (name, _) in BUILT_IN {
        let about = Scenario::built_in(name).map(|scenario| scenario.about).unwrap_or_default();
        println!("  {name:14} {about}");
    }
}

fn run(arguments: Run) -> Result<(), Failure> {
    let path = Path::new(&arguments.scenario);
    let is_file = path.exists() || arguments.scenario.ends_with(".toml");
    let mut scenario =
        if is_file { Scenario::read(path)? } else { Scenario::built_in(&arguments.scenario)? };
    scenario.seed = arguments.seed.unwrap_or(scenario.seed);
    if arguments.calls.is_some() {
        scenario.load.calls = arguments.calls;
    }
    let mut names = arguments.policies;
    if names.is_empty() {
        names.clone_from(&scenario.policies);
    }
    if names.is_empty() {
        names = policies::balancing().into_iter().map(str::to_owned).collect();
    }
    names.iter().try_for_each(|name| policies::check(name))?;
    let jobs: Vec<_> = names.iter().map(|name| Job::new(scenario.clone(), name)).collect();
    let threads = arguments.threads.unwrap_or_else(run::threads).max(1);
    let reports = run_all(&jobs, threads, arguments.quiet);
    print!("{}", formatted(&reports, arguments.format)?);
    if let Some(folder) = arguments.out {
        write(&folder, &scenario, &reports)?;
    }
    Ok(())
}

fn formatted(reports: &[Report], format: Format) -> Result<String, Failure> {
    Ok(match format {
        Format::Table => to_table(reports).plain(),
        Format::Markdown => to_table(reports).markdown(),
        Format::Csv => to_csv(reports),
        Format::Json => serde_json::to_string_pretty(reports)? + "\n",
    })
}

fn write(folder: &Path, scenario: &Scenario, reports: &[Report]) -> Result<(), Failure> {
    fs::create_dir_all(folder)?;
    let bucket = scenario.load.bucket.map_or(1.0, Time::seconds);
    fs::write(folder.join("table.csv"), to_csv(reports))?;
    fs::write(folder.join("series.csv"), series_csv(reports, bucket))?;
    fs::write(folder.join("report.json"), serde_json::to_string_pretty(reports)? + "\n")?;
    let over_time = studies::over_time(reports, bucket);
    chart::write_svg(&over_time, folder, "over_time")?;
    chart::write_png(&over_time, folder, "over_time")?;
    if reports.iter().all(|report| report.phases.len() == 1) {
        let latencies = studies::latencies(&scenario.name, reports);
        chart::write_svg(&latencies, folder, "latency")?;
        chart::write_png(&latencies, folder, "latency")?;
    }
    Ok(())
}
