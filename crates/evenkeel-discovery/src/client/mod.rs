//! Connections to registries: where a server is, and how it is dialled.

mod dial;
mod server;

pub(crate) use dial::Dial;
pub use server::{Server, ServerError};
