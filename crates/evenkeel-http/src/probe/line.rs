//! Where probes go, and over which connections.

use std::{
    collections::HashMap,
    fmt,
    future::poll_fn,
    net::SocketAddr,
    sync::{Arc, Mutex, Weak},
};

use evenkeel_core::{
    BoxError,
    connect::Connect,
    endpoint::{Address, Endpoint},
    node::Node,
};
use http::{Request, Response};
use hyper::body::Incoming;
use tower_service::Service;

use super::body::Whole;
use crate::{connector::HttpConnector, service::HttpService};

/// Up to this number it is cheap to look for those that have left each time.
const MIN_SWEEP: usize = 64;

/// How a probe reaches endpoints by HTTP.
pub(crate) struct Line {
    pub(super) connector: HttpConnector<Whole>,
    pub(super) port: Option<u16>,
    pub(super) is_kept: bool,
    kept: Mutex<Kept>,
}

/// The services that keep connections, for endpoints that are in use.
#[derive(Default)]
struct Kept {
    services: HashMap<Address, (Weak<Node>, HttpService<Whole>)>,
    sweep_from: usize,
}

impl Line {
    pub(crate) fn new(connector: HttpConnector<Whole>) -> Self {
        Self { connector, port: None, is_kept: false, kept: Mutex::default() }
    }

    /// A service for one probe, over its own connection unless one is kept.
    ///
    /// Its connections end when it is dropped, so it must live until the answer has been read. So a probe that
    /// times out ends its connection, and a connection that hangs is never used twice.
    pub(super) fn take(&self, node: &Node) -> HttpService<Whole> {
        let kept =
            self.kept.lock().expect("no panic under the lock").services.remove(node.address());
        kept.map_or_else(|| self.fresh(node), |(_, service)| service)
    }

    /// A service with its own connections.
    pub(crate) fn fresh(&self, node: &Node) -> HttpService<Whole> {
        self.connector.connect(&apart(node, self.port))
    }

    /// Keeps the connections of a service that works, if that is set.
    pub(super) fn keep(&self, node: &Arc<Node>, service: HttpService<Whole>) {
        if !self.is_kept {
            return;
        }
        let mut kept = self.kept.lock().expect("no panic under the lock");
        let count = kept.services.len();
        if count < MIN_SWEEP || kept.sweep_from <= count {
            kept.services.retain(|_, (node, _)| 0 < node.strong_count());
            kept.sweep_from = MIN_SWEEP.max(2 * kept.services.len());
        }
        kept.services.insert(node.address().clone(), (Arc::downgrade(node), service));
    }
}

/// Sends one request.
pub(crate) async fn send_over(
    service: &HttpService<Whole>,
    request: Request<Whole>,
) -> Result<Response<Incoming>, BoxError> {
    let mut service = service.clone();
    poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call(request).await
}

/// The same endpoint as a separate node, at another port if one is given.
///
/// A probe that cannot connect must not make discovery look again, every two seconds for as long as an
/// endpoint is down.
pub(super) fn apart(node: &Node, port: Option<u16>) -> Arc<Node> {
    let address = match (node.address().clone(), port) {
        (Address::Socket(mut address), Some(port)) => {
            address.set_port(port);
            Address::Socket(address)
        }
        (Address::Name { host, .. }, Some(port)) => Address::Name { host, port },
        (address, _) => address,
    };
    let alternatives = node.endpoint().alternatives.clone();
    let at_port = |mut alternative: SocketAddr| {
        alternative.set_port(port.unwrap_or(alternative.port()));
        alternative
    };
    let alternatives = alternatives.iter().copied().map(at_port);
    Arc::new(Node::new(Endpoint::new(address).alternatives(alternatives)))
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line")
            .field("connector", &self.connector)
            .field("port", &self.port)
            .field("is_kept", &self.is_kept)
            .finish_non_exhaustive()
    }
}
