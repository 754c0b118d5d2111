//! A probe that makes a TLS handshake.

use std::sync::Arc;

use evenkeel_core::{BoxError, health::check::Probe, node::Node};
use evenkeel_net::Tls;
use http::Uri;

use super::line::apart;
use crate::{
    dial::{Dial, DialOptions},
    target::Host,
};

/// Connects and makes a TLS handshake: the certificate is valid and the process responds.
///
/// ```
/// use evenkeel::http::{Tls, TlsProbe};
///
/// let probe = TlsProbe::new(Tls::system().server_name("orders.internal"));
/// # drop(probe);
/// ```
#[derive(Clone, Debug)]
pub struct TlsProbe {
    options: DialOptions,
    port: Option<u16>,
}

impl TlsProbe {
    /// Verifies endpoints as `tls` says. The server name is the endpoint's host, unless `tls` sets another.
    #[must_use]
    pub fn new(tls: Tls) -> Self {
        let mut options = DialOptions::for_probe();
        options.dialer = options.dialer.tls(tls);
        Self { options, port: None }
    }

    /// Connects to another port. Default: the endpoint's own.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }
}

impl Probe for TlsProbe {
    async fn probe(&self, node: &Arc<Node>) -> Result<(), BoxError> {
        let node = apart(node, self.port);
        let authority = Host::of(node.address()).authority;
        let uri = Uri::builder().scheme("https").authority(authority).path_and_query("/");
        Dial::new(node, self.options.clone()).connect(uri.build()?).await?;
        Ok(())
    }
}
