//! The parsers of network input, for the fuzz targets of the workspace. Not part of the public API.

pub use crate::{
    consul::fuzzing::{consul_answer, micro_tags},
    dns::fuzzing::dns_services,
};
