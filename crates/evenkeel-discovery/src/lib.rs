//! Where endpoints come from.
pub mod changes;
pub mod channel;
pub mod combine;
#[cfg(feature = "dns")]
pub mod dns;
pub mod error;
#[cfg(any(feature = "json", feature = "yaml", feature = "toml"))]
pub mod file;
pub mod fixed;
pub mod poll;
pub mod watch;

mod clock;
mod journal;
mod refresh;
mod running;
mod set;

pub use changes::Changes;
pub use channel::{ChannelDiscovery, Sender, channel};
pub use combine::DiscoveryExt;
#[cfg(feature = "dns")]
pub use dns::Dns;
#[cfg(any(feature = "json", feature = "yaml", feature = "toml"))]
pub use file::File;
pub use fixed::Fixed;
pub use poll::Poll;
