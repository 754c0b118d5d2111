//! What holds in every order of steps of several threads.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p evenkeel-core --test loom --release`

#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod budget;
mod census;
mod limit;
mod load_bound;
mod nodes;
