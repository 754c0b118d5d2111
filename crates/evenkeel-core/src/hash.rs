//! The hash functions with which policies that hash find an endpoint for a request.
//!
//! They are those of Envoy and gRPC, and of nginx, so that all of these send a key to the same
//! endpoint. None is suited to secrets, and none withstands keys that are chosen to collide.

/// xxHash64 with seed 0: what Envoy and gRPC hash keys with.
///
/// ```
/// assert_eq!(evenkeel::core::hash::xxh64(b"foo"), 0x33bf_00a8_59c4_ba3f);
/// ```
#[must_use]
#[inline]
pub fn xxh64(bytes: &[u8]) -> u64 {
    xxh64_seeded(bytes, 0)
}

/// xxHash64 with a seed.
#[must_use]
#[inline]
pub fn xxh64_seeded(bytes: &[u8], seed: u64) -> u64 {
    xxhash_rust::xxh64::xxh64(bytes, seed)
}

/// CRC-32 (IEEE 802.3): what nginx and pingora hash keys with for ketama.
///
/// ```
/// assert_eq!(evenkeel::core::hash::crc32(b"123456789"), 0xCBF4_3926);
/// ```
#[must_use]
#[inline]
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// Spreads the bits of `x` over all bits: the last step of SplitMix64 (Steele, Lea, Flood 2014).
#[inline]
pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ x >> 31
}
