//! What happens to a node.

use super::host::Cause;
use crate::{endpoint::Address, time::Timestamp};

/// A change of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// It is ejected until the given time.
    Ejected(Address, Cause, Timestamp),
    /// It is on probation.
    OnProbation(Address),
    /// It gets its full share again.
    Returned(Address),
}
