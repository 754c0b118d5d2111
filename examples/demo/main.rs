//! The main job, embedded: real HTTP servers on loopback, a load through a whole pipeline, and
//! servers that die, hang, drain, join and change their weight meanwhile.
//!
//! `cargo run -p demo` shows it live where there is a terminal, as a log where there
//! is none, and ends with a table. It fails if a caller saw an error.

mod args;
mod backend;
mod clock;
mod load;
mod log;
mod picture;
mod pipeline;
mod report;
mod scene;
mod screen;
mod stats;

use std::{io::IsTerminal, process::ExitCode, sync::Arc};

use args::{Args, Command};
use clap::Parser;
use scene::Scene;
use stats::Stats;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Command::Backend { delay_ms }) = args.command {
        return exit_code(backend::serve(delay_ms).await.map(|()| true));
    }
    exit_code(run(args).await)
}

/// Runs the whole play, and returns whether it kept what it promises.
async fn run(args: Args) -> Result<bool, BoxError> {
    let stats = Arc::new(Stats::new());
    let mut scene = Scene::set_up(&args, stats.clone()).await?;
    let client = pipeline::client(scene.discovery(), args.policy()?);
    let is_live = std::io::stdout().is_terminal() && !args.plain;

    let load = tokio::spawn(load::run(client, args.rate, args.duration(), stats.clone()));
    let display = if is_live {
        tokio::spawn(screen::show(args.clone(), stats.clone()))
    } else {
        tokio::spawn(log::print(args.clone(), stats.clone()))
    };
    tokio::select! {
        () = scene.play(args.duration()) => {}
        _ = tokio::signal::ctrl_c() => stats.stop(),
    }
    load.await?;
    stats.stop();
    display.await??;
    if let Some(path) = &args.picture {
        picture::save(path, &args, &stats)?;
    }
    scene.strike().await;

    report::print(&args, &stats);
    Ok(report::is_promise_kept(&stats))
}

fn exit_code(result: Result<bool, BoxError>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
