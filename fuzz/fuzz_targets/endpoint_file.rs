//! No text makes the parser of endpoint files panic or hang, and what it takes names no address twice.

#![no_main]

use std::collections::HashSet;

use evenkeel_discovery::file::{Format, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for format in [Format::Json, Format::Yaml, Format::Toml] {
        if let Ok(endpoints) = parse(text, format) {
            let addresses: HashSet<_> = endpoints.iter().map(|e| &e.address).collect();
            assert_eq!(addresses.len(), endpoints.len());
        }
    }
});
