//! How loaded a node is, and how slow. Requests in flight are counted by the node itself.

mod latency_window;
mod peak_ewma;

pub use latency_window::LatencyWindow;
pub use peak_ewma::PeakEwma;
