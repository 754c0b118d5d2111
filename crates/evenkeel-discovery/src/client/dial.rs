//! Making one connection to a registry's server.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use evenkeel_core::BoxError;
use evenkeel_net::{Dialer, Stream};
use http::Uri;
use hyper_util::rt::TokioIo;
use tower::Service;

use super::server::Server;

/// Connects to one server, regardless of the URI.
///
/// A connection is silent for minutes while a registry holds an answer back, and also when the peer has
/// restarted or is gone. The dialer's keep-alive tells them apart.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    server: Server,
    dialer: Dialer,
}

impl Dial {
    pub(crate) fn new(server: Server, dialer: Dialer) -> Self {
        Self { server, dialer }
    }

    /// Opens one connection, over TLS if the server's URL asks for it.
    pub(crate) async fn connect(self) -> Result<TokioIo<Stream>, BoxError> {
        let endpoint = self.server.endpoint();
        let stream = if self.server.is_tls {
            self.dialer.connect_tls(&endpoint, self.server.host_name()).await
        } else {
            self.dialer.connect(&endpoint).await
        };
        stream.map(TokioIo::new)
    }
}

impl Service<Uri> for Dial {
    type Response = TokioIo<Stream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Stream>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}
