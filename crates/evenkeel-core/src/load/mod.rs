//! How loaded a node is, and how slow. Requests in flight are counted by the node itself.

mod estimate;
mod latency_window;
mod peak_ewma;
mod rates;
mod report;
mod server_load;

pub use estimate::{Arrival, LoadEstimate};
pub use latency_window::LatencyWindow;
pub use peak_ewma::PeakEwma;
pub use rates::Rates;
pub use report::LoadReport;
pub use server_load::ServerLoad;
