//! The figures that the README quotes, ours beside our peers' in one process.
//!
//! * `cargo bench` prints the whole table in a few minutes, `cargo bench -- picks churn` parts of it.
//! * `cargo bench --features pingora` adds pingora's selection; it takes cmake to build.
//! * `cargo bench --profile release` shows what a build without link-time optimisation costs.
//!
//! Contenders alternate in short rounds. What only computes is given as the best of its rounds, what
//! passes through sockets as the median. At the end of each part its targets are compared: met or
//! missed, with the figure. A missed target fails nothing.
//!
//! The allocation counter wraps the system's allocator in this process: it adds some nanoseconds to
//! each allocation, ours and others'.

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

/// The parts of the table in the order in which they are printed.
pub const PARTS: [(&str, fn()); 6] = [
    ("picks", picks::run),
    ("hashing", hashing::run),
    ("churn", churn::run),
    ("memory", memory::run),
    ("layers", layers::run),
    ("wire", wire::run),
];
