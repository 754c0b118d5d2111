//! Making one connection to one node.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use evenkeel_core::{error::is_of_this_host, node::Node, time::Timestamp};
use evenkeel_net::Dialer;
use http::{
    Uri,
    uri::{Authority, Scheme},
};
use hyper_util::rt::TokioIo;
use tower_service::Service;

use crate::{clock, error::ConnectError, watched::Watched};

/// How connections are made.
#[derive(Clone, Debug)]
pub(crate) struct DialOptions {
    pub(crate) dialer: Dialer,
    /// Whether the node is checked when it closes a connection.
    pub(crate) is_watched: bool,
}

impl DialOptions {
    /// For a connection that is closed as soon as it is made. Probes have their own timeout.
    pub(crate) fn for_probe() -> Self {
        let an_hour = Duration::from_secs(3_600);
        let dialer = Dialer::new().connect_timeout(an_hour).tcp_keep_alive(None);
        Self { dialer, is_watched: false }
    }
}

/// Connects to its node, with any host in the URI.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    node: Arc<Node>,
    options: DialOptions,
    /// When the node was last checked; zero for never.
    looked: Arc<AtomicU64>,
}

/// A node that closes many connections is checked once.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

impl Dial {
    pub(crate) fn new(node: Arc<Node>, options: DialOptions) -> Self {
        Self { node, options, looked: Arc::default() }
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The authority of connections that `uri` may use: a certificate is checked for one authority.
    pub(crate) fn authority<'a>(&self, uri: &'a Uri) -> Option<&'a Authority> {
        let is_https = uri.scheme() == Some(&Scheme::HTTPS);
        if is_https && !self.options.dialer.has_server_name() { uri.authority() } else { None }
    }

    /// One connection, over TLS if the URI's scheme is `https`.
    ///
    /// # Errors
    /// If no connection can be made. Marks the node as unreachable, unless this host is at fault.
    pub(crate) async fn connect(self, uri: Uri) -> Result<TokioIo<Watched>, ConnectError> {
        let (dialer, endpoint) = (&self.options.dialer, self.node.endpoint());
        let connected = if uri.scheme() == Some(&Scheme::HTTPS) {
            dialer.connect_tls(&endpoint, uri.host().unwrap_or_default()).await
        } else {
            dialer.connect(&endpoint).await
        };
        match connected {
            Ok(stream) => {
                let watcher = self.options.is_watched.then_some(self);
                Ok(TokioIo::new(Watched::new(stream, watcher)))
            }
            Err(source) => {
                // Discovery cannot fix what this host lacks.
                if !is_of_this_host(&*source) {
                    self.node.unreachable();
                }
                Err(ConnectError::new(self.node.address().clone(), source))
            }
        }
    }

    /// Checks whether the node, which closed a connection, still accepts one.
    ///
    /// A process that dies closes all its connections, including idle ones. Some milliseconds later its node
    /// is [lost](Node::mark_lost). Without the check, the next request would fail first.
    pub(crate) fn look_again(self) {
        let now = clock::now();
        let last = self.looked.load(Relaxed);
        let is_early = last != 0 && now.since(Timestamp::from_nanos(last)) < LOOK_INTERVAL;
        if is_early || self.looked.compare_exchange(last, now.as_nanos(), Relaxed, Relaxed).is_err()
        {
            return;
        }
        tokio::spawn(async move {
            match self.options.dialer.connect(&self.node.endpoint()).await {
                Ok(_) => {}
                // This says nothing about the node.
                Err(error) if is_of_this_host(&*error) => {}
                Err(_) => self.node.mark_lost(clock::now()),
            }
        });
    }
}

impl Service<Uri> for Dial {
    type Response = TokioIo<Watched>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Watched>, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}
