//! Events that an operator reads.

use crate::workspace::{assert_none, files};

/// The beginnings of the tracing macros.
const MACROS: [&str; 6] = ["debug!(", "info!(", "warn!(", "error!(", "debug_span!(", "info_span!("];

/// Layers belong to clients. If a program has two clients, an operator has to see which one an
/// event belongs to.
#[test]
fn every_event_of_a_layer_names_its_client() {
    let mut broken = Vec::new();
    let mut count = 0;
    for file in files("rs") {
        if !file.path.starts_with("crates/evenkeel-layers/src/") {
            continue;
        }
        for (at, _) in file.text.match_indices("tracing::") {
            let event = &file.text[at + "tracing::".len()..];
            if !MACROS.iter().any(|name| event.starts_with(name)) {
                continue;
            }
            count += 1;
            let end = event.find(");").or_else(|| event.find(")\n")).unwrap_or(event.len());
            if !event[..end].contains("client") {
                let line = file.text[..at].matches('\n').count() + 1;
                broken.push(format!("{}:{line}", file.path));
            }
        }
    }
    assert!(20 < count, "only {count} events were found");
    assert_none("an event of a layer has the field `client`", &broken);
}
