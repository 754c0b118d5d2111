//! How fast a change in a registry reaches every balancer, and what callers see meanwhile.
//!
//! # What is real
//! The registries, each started for one trial and reached by callers through a relay that counts; the
//! backends, each a process that enters itself with `evenkeel::discovery::register`; the callers, in a process
//! of their own: several balancers with the recommended pipeline that share one discovery, under an open-loop
//! load. Peers beside them find the same backends in the same registry.
//!
//! # What is measured
//! From the moment in which a backend begins to enter, change or leave (or is killed, or a registry answers again)
//! until the change is in the last of the balancers, and until the first request arrives there or the
//! last. Processes share one clock. What the registry itself needs is part of it.
//!
//! # Where a registry is added
//! `registries/NAME.rs` and one entry in `all` of `registries/mod.rs`: how it starts, the address of its
//! discovery, and how something is entered where a service does not enter itself.

#[cfg(target_os = "linux")]
mod admin;
#[cfg(target_os = "linux")]
mod backend;
#[cfg(target_os = "linux")]
mod callers;
#[cfg(target_os = "linux")]
mod cost;
#[cfg(target_os = "linux")]
mod event;
#[cfg(target_os = "linux")]
mod goals;
#[cfg(target_os = "linux")]
mod large;
#[cfg(target_os = "linux")]
mod lines;
#[cfg(target_os = "linux")]
mod moment;
#[cfg(target_os = "linux")]
mod options;
#[cfg(target_os = "linux")]
mod registries;
#[cfg(target_os = "linux")]
mod relay;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod scene;
#[cfg(target_os = "linux")]
mod servers;
#[cfg(target_os = "linux")]
mod trial;

#[cfg(target_os = "linux")]
use evenkeel_rig::BoxError;

/// kube and the discovery leave the choice of cryptography to the program.
#[cfg(target_os = "linux")]
fn install_cryptography() {
    // An error means that it is chosen already.
    _ = rustls::crypto::ring::default_provider().install_default();
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use std::process::ExitCode;

    use callers::ours::{self, whole_set};
    use clap::Parser;
    use evenkeel_rig::process::{WITH_PARENT, become_program};

    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.split_first() {
        Some((first, rest)) if first == backend::ARGUMENT => backend::run(rest),
        Some((first, rest)) if first == ours::ARGUMENT => ours::run(rest),
        Some((first, rest)) if first == whole_set::ARGUMENT => whole_set::run(rest),
        Some((first, rest)) if first == WITH_PARENT => become_program(rest),
        _ => run::run(options::Options::parse()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("propagation is measured on Linux: it starts, stops and watches processes");
}
