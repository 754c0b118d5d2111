//! What the tests of several registries share.

pub(crate) mod faulty;
pub(crate) mod servers;
pub(crate) mod slow_motion;
#[cfg(feature = "tls")]
pub(crate) mod tls_front;
pub(crate) mod watching;
