//! Tests of the workspace as a whole: its invariants, and its crates together.
