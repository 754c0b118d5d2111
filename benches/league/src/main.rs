//! The league of failures: how fast each contestant stops sending requests to a faulty endpoint, and
//! how many errors its callers see meanwhile.
//!
//! # What is real
//! Five endpoints. Each is a process on an address of its own (127.B.lane.1 to 5), which is killed,
//! stopped, told to fail or restarted. One caller with an open-loop load: requests start at seeded
//! random times, independent of earlier answers, and each gives up after
//! [`DEADLINE`](evenkeel_rig::load::DEADLINE). Proxies are processes, too; their caller is a plain
//! hyper client.
//!
//! # What an attempt is, and how it is counted
//! A dead or stopped endpoint cannot count its attempts, and a relay in front of it would not
//! refuse connections as a dead process does. So the [wire] is watched: a raw socket sees every TCP
//! packet that arrives at an endpoint's address, in the same way for every contestant and language.
//! An attempt is the head of a request (an HTTP/1.1 request line or an HTTP/2 HEADERS frame), or a
//! SYN whose connection did not carry a head within 100 ms. Health checks go to a second port of
//! the endpoint's process and are not counted. Opening raw sockets needs root, or `unshare -rn`.
//!
//! # Silent loss
//! A stopped process (SIGSTOP) answers nothing, but its kernel still acknowledges packets: pooled
//! connections are silent (F3h1, F3h2). For new connections (F3new) the endpoint closes each
//! connection after one answer. Its accept queue is filled when it stops, so that the kernel drops
//! every further SYN.

#[cfg(target_os = "linux")]
mod contestants;
#[cfg(target_os = "linux")]
mod endpoint;
#[cfg(target_os = "linux")]
mod fault;
#[cfg(target_os = "linux")]
mod figures;
#[cfg(target_os = "linux")]
mod goals;
#[cfg(target_os = "linux")]
mod options;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod scene;
#[cfg(target_os = "linux")]
mod trial;
#[cfg(target_os = "linux")]
mod wire;

#[cfg(target_os = "linux")]
use evenkeel_rig::BoxError;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use std::process::ExitCode;

    use clap::Parser;
    use evenkeel_rig::process::{WITH_PARENT, become_program};

    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.split_first() {
        Some((first, rest)) if first == endpoint::ARGUMENT => endpoint::run(rest),
        Some((first, rest)) if first == WITH_PARENT => become_program(rest),
        _ => run::run(&options::Options::parse()),
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
    eprintln!("the league of failures needs Linux: it watches the wire with a raw socket");
}
