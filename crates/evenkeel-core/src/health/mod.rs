//! Who is fit to be asked: state machines that are told how attempts end and what time it is.

pub mod breaker;
pub mod check;
pub mod outlier;
mod window;

pub use window::Window;
