//! Connections for evenkeel: one dialler, one TLS configuration, one stream.

pub mod happy_eyeballs;
pub mod stream;
#[cfg(feature = "tls")]
pub mod tls;
