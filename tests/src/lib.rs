//! Tests of the workspace as a whole: its rules, and its crates together.
