//! No tag makes the reader of go-micro's entries panic, and what it read it can write.

#![no_main]

use evenkeel_discovery::fuzzing::micro_tags;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|tags: Vec<String>| assert!(micro_tags(tags)));
