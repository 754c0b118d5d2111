//! What is read from networks, for the fuzz targets of the workspace. No part of the interface.

pub use crate::{
    consul::fuzzing::{consul_answer, micro_tags},
    dns::fuzzing::dns_services,
};
