//! The parsers of this module, for fuzz targets.

use evenkeel_core::endpoint::Endpoint;

use super::{
    AddressOf,
    answer::{self, Reading},
    micro,
};

/// The endpoints in an agent's answer; none if it is not an answer.
#[must_use]
pub fn consul_answer(body: &[u8], is_micro: bool, address: AddressOf) -> Option<Vec<Endpoint>> {
    let is_ordered = body.len().is_multiple_of(2);
    let reading =
        Reading { address, zone_key: "zone".into(), warnings: true, is_ordered, is_micro };
    answer::read(body, &reading).ok().map(|found| found.endpoints)
}

/// Whether go-micro's tags have the same content after they are written and read again.
#[must_use]
pub fn micro_tags(tags: Vec<String>) -> bool {
    let told = micro::read(tags);
    let version = told.version.unwrap_or_default();
    let Ok(written) = micro::write(&told.metadata, &version, &[]) else { return false };
    let again = micro::read(written);
    again.metadata == told.metadata && again.version == Some(version)
}
