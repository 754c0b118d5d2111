//! Health: state machines that decide which nodes get requests. They are given outcomes and the
//! time.

pub mod breaker;
pub mod check;
mod judge;
pub mod outlier;
mod window;

pub use judge::Judge;
pub use window::Window;
