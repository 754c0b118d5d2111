//! Registration over real registries: entered, kept, lost, entered again, left.

#[cfg(feature = "consul")]
mod consul;
#[cfg(feature = "etcd")]
mod etcd;

#[cfg(feature = "consul")]
use crate::consul::real;
#[cfg(feature = "etcd")]
use crate::etcd::real as etcd_real;
use crate::{support::servers, support::slow_motion, support::watching};
