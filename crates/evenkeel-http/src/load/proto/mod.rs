//! ORCA's messages, generated from `orca.proto`.
#![allow(
    clippy::all,
    clippy::pedantic,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    dead_code,
    reason = "generated code is as it is"
)]

include!("orca.rs");
