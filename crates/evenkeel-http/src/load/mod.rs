//! How a server reports its load: to probes, and with its responses.

#[cfg(feature = "orca")]
mod binary;
mod body;
#[cfg(feature = "orca")]
mod follow;
mod form;
mod invalid;
#[cfg(feature = "orca")]
mod json;
mod layer;
pub(crate) mod message;
mod meter;
#[cfg(feature = "orca")]
mod proto;
#[cfg(feature = "orca")]
mod stream;
#[cfg(feature = "orca")]
mod system;
mod text;

#[cfg(feature = "orca")]
pub use self::follow::{OrcaConnect, OrcaLayer};
#[cfg(feature = "orca")]
pub(crate) use self::form::read_any;
pub(crate) use self::form::read_text;
pub use self::{
    body::ReportLoadBody,
    form::ReportForm,
    invalid::InvalidReport,
    layer::{PROBE_PATH, ReportLoad, ReportLoadFuture, ReportLoadLayer},
    meter::LoadMeter,
};
