//! How fast a change in a registry reaches every balancer, and what callers see meanwhile.
//!
//! # What is real
//! The registries: each is started for one trial, and callers reach it through a relay that counts.
//! The backends: each is a process that registers itself with `evenkeel::discovery::register`. The
//! callers: a process with several balancers, which have the recommended pipeline and share one
//! discovery, under an open-loop load. Peers find the same backends in the same registry.
//!
//! # What is measured
//! A measurement begins when a backend begins to join, change or leave (or when it is killed, or
//! when a registry answers again). It ends when the change is in the last of the balancers, and
//! when the first or the last request arrives at the backend. All processes share one clock. The
//! delay of the registry itself is included.
//!
//! # How to add a registry
//! Add `registries/NAME.rs` and one entry in `all` of `registries/mod.rs`: how the registry starts,
//! the address of its discovery, and how an endpoint is registered if a service does not register
//! itself.

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

/// kube and the discovery let the program choose the cryptography.
#[cfg(target_os = "linux")]
fn install_cryptography() {
    // An error means that it was chosen before.
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
