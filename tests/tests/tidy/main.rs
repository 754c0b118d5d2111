//! The workspace keeps its own rules. They are checked against the source, with one test per rule.
//!
//! Crates that do not exist yet break no rule.

mod documents;
mod events;
mod imports;
mod manifests;
mod source;
mod workspace;
