//! The workspace keeps its own rules: read from the source, one test a rule.
//!
//! Crates that are not there yet break none of them.

mod documents;
mod events;
mod manifests;
mod source;
mod workspace;
