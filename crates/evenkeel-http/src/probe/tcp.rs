//! A probe that only connects.

use std::sync::Arc;

use evenkeel_core::{BoxError, health::check::Probe, node::Node};
use http::Uri;

use super::line::apart;
use crate::dial::{Dial, DialOptions};

/// Connects to an endpoint by TCP, or to its Unix socket, and closes the connection.
///
/// It shows that something listens. A process that hangs passes as long as its kernel accepts connections.
/// If an endpoint can answer a request, use a probe that sends one.
///
/// ```
/// use evenkeel::http::TcpProbe;
///
/// let probe = TcpProbe::new().port(9_000);
/// # drop(probe);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpProbe {
    port: Option<u16>,
}

impl TcpProbe {
    /// Connects to the endpoint's own port.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Connects to another port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }
}

impl Probe for TcpProbe {
    async fn probe(&self, node: &Arc<Node>) -> Result<(), BoxError> {
        let dial = Dial::new(apart(node, self.port), DialOptions::for_probe());
        dial.connect(Uri::from_static("http://localhost")).await?;
        Ok(())
    }
}
