//! The figures of `docs/performance.md`, for evenkeel and its peers in one process.
//!
//! * `cargo bench` prints the whole table in a few minutes.
//! * `cargo bench -- picks churn` prints parts of it.
//! * `cargo bench --features pingora` adds pingora's selection; it needs cmake to build.
//! * `cargo bench --profile release` shows what a build without link-time optimisation costs.
//!
//! Contenders alternate in short rounds. A figure of pure computation is the best of its rounds; a
//! figure through sockets is the median. At the end of each part, figures are compared with their
//! targets: met or missed. A missed target does not fail the run.
//!
//! The allocation counter wraps the system's allocator in this process. It adds some nanoseconds to
//! each allocation, for all contenders alike.

mod churn;
mod clock;
mod contender;
mod hashing;
mod layers;
mod leaf;
mod measure;
mod memory;
mod peers;
mod picks;
mod print;
mod wire;

pub use wire::serve;

/// The parts of the table, in the order of printing.
pub const PARTS: [(&str, fn()); 6] = [
    ("picks", picks::run),
    ("hashing", hashing::run),
    ("churn", churn::run),
    ("memory", memory::run),
    ("layers", layers::run),
    ("wire", wire::run),
];
