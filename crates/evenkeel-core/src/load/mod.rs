//! How loaded a node is. Requests in flight are counted by the node itself.

mod peak_ewma;

pub use peak_ewma::PeakEwma;
