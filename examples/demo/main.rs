//! The main use case in one program: real HTTP servers on loopback and a load through a whole
//! pipeline, while servers die, hang, drain, join and change their weight.
//!
//! `cargo run -p demo` shows the run live on a terminal, or as a log without one, and ends with a
//! table. It fails if a caller saw an error.

mod args;
mod backend;
mod canvas;
mod clock;
mod load;
mod log;
mod pipeline;
mod report;
mod scene;
mod screen;
mod stats;

use std::{io::IsTerminal, process::ExitCode, sync::Arc};

use args::Args;
use scene::Scene;
use stats::Stats;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let args = match Args::parse() {
        Ok(Some(args)) => args,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => return exit_code(Err(error)),
    };
    if let Some(delay_ms) = args.backend {
        return exit_code(backend::serve(delay_ms).await.map(|()| true));
    }
    exit_code(run(args).await)
}

/// Runs the demo, and returns whether no caller saw an error.
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
        std::fs::write(path, screen::draw(&args, &stats).svg())?;
        println!("drawn: {}", path.display());
    }
    scene.strike().await;

    report::print(&args, &stats);
    Ok(report::has_succeeded(&stats))
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
