//! Connections for evenkeel: to endpoints, and to the servers of registries and quotas.
//!
//! A [`Dialer`] makes a connection to an endpoint, over TCP or a Unix socket, with TLS or without. It races
//! the addresses of an endpoint (RFC 8305), bounds the time, and has the system notice peers that are gone.
//! The connection is a [`Stream`]. `Tls` says how the other side is verified, and with which `Identity` this
//! side proves who it is.
//!
//! # Features
//! | feature | brings |
//! |---|---|
//! | `tls` | `Tls` and `Identity`, by rustls, with the crypto provider that the program chooses |
//! | `hyper` | a `Stream` is a connection of hyper-util's clients |
//!
//! # What this crate does not do
//! It does not keep or share connections, try again, or accept connections. It does not cache the addresses
//! of names.

mod dialer;
mod happy_eyeballs;
mod stream;
#[cfg(feature = "tls")]
mod tls;

pub use dialer::{ConnectTimeout, Dialer};
pub use stream::Stream;
#[cfg(feature = "tls")]
pub use tls::{Identity, Tls, TlsError, process_crypto};
