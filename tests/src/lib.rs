//! Tests of the whole workspace: its invariants, and its parts together.
