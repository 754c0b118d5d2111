//! The shared parts of the programs that measure with real processes: the league of failures and
//! the measurement of propagation.

#[cfg(target_os = "linux")]
pub mod busy;
pub mod clock;
pub mod load;
pub mod percentiles;
#[cfg(target_os = "linux")]
pub mod process;
pub mod table;

/// An error of any kind: a measurement stops and prints it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
