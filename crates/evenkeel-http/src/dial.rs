//! Making one connection to one node.

use std::{
    future::Future,
    iter,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use evenkeel_core::{
    BoxError, endpoint::Address, error::is_of_this_host, node::Node, time::Timestamp,
};
use evenkeel_net::{
    happy_eyeballs,
    stream::{Io, Stream},
};
use http::{
    Uri,
    uri::{Authority, Scheme},
};
use socket2::{SockRef, TcpKeepalive};
use tower_service::Service;

use crate::{
    clock,
    error::{ConnectError, ConnectTimeout},
    watched::Watched,
};

/// How connections are made.
#[derive(Clone, Debug)]
pub(crate) struct DialOptions {
    pub(crate) timeout: Duration,
    pub(crate) keep_alive: Option<Duration>,
    /// Whether the node is checked when it closes a connection.
    pub(crate) is_watched: bool,
    /// The protocols offered in a TLS handshake, best first.
    pub(crate) protocols: &'static [&'static [u8]],
    #[cfg(feature = "tls")]
    pub(crate) tls: Arc<evenkeel_net::tls::Connector>,
}

impl DialOptions {
    /// For a connection that is closed as soon as it is made. Probes have their own timeout.
    pub(crate) fn for_probe() -> Self {
        Self {
            timeout: Duration::from_secs(3_600),
            keep_alive: None,
            is_watched: false,
            protocols: &[],
            #[cfg(feature = "tls")]
            tls: Arc::new(evenkeel_net::tls::Connector::new(evenkeel_net::tls::Tls::system())),
        }
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
        #[cfg(feature = "tls")]
        if self.options.tls.has_server_name() {
            return None;
        }
        if uri.scheme() == Some(&Scheme::HTTPS) { uri.authority() } else { None }
    }

    /// One connection, over TLS if the URI's scheme is `https`.
    ///
    /// # Errors
    /// If no connection can be made. Marks the node as unreachable, unless this host is at fault.
    pub(crate) async fn connect(self, uri: Uri) -> Result<Stream, ConnectError> {
        let after = self.options.timeout;
        let connected = match tokio::time::timeout(after, self.stream(&uri)).await {
            Ok(connected) => connected,
            Err(_) => Err(ConnectTimeout { after }.into()),
        };
        connected.map_err(|source| {
            // Discovery cannot fix what this host lacks.
            if !is_of_this_host(&*source) {
                self.node.unreachable();
            }
            ConnectError::new(self.node.address().clone(), source)
        })
    }

    /// Checks whether the node, which closed a connection, still accepts one.
    ///
    /// A process that dies closes all its connections, including idle ones. Some milliseconds later its node
    /// is [lost](Node::lost). Without the check, the next request would fail first.
    pub(crate) fn look_again(self) {
        let now = clock::now();
        let last = self.looked.load(Relaxed);
        let is_early = last != 0 && now.since(Timestamp::from_nanos(last)) < LOOK_INTERVAL;
        if is_early || self.looked.compare_exchange(last, now.as_nanos(), Relaxed, Relaxed).is_err()
        {
            return;
        }
        tokio::spawn(async move {
            match tokio::time::timeout(self.options.timeout, self.io()).await {
                Ok(Ok(_)) => {}
                // This says nothing about the node.
                Ok(Err(error)) if is_of_this_host(&*error) => {}
                Ok(Err(_)) | Err(_) => self.node.lost(clock::now()),
            }
        });
    }

    async fn stream(&self, uri: &Uri) -> Result<Stream, BoxError> {
        let io = self.io().await?;
        let io: Box<dyn Io> = match self.options.is_watched {
            true => Box::new(Watched::new(io, self.clone())),
            false => io,
        };
        if uri.scheme() != Some(&Scheme::HTTPS) {
            return Ok(Stream::new(io, false));
        }
        #[cfg(feature = "tls")]
        return self
            .options
            .tls
            .connect(io, uri.host().unwrap_or_default(), self.options.protocols)
            .await;
        #[cfg(not(feature = "tls"))]
        return Err("https needs the feature `tls`".into());
    }

    async fn io(&self) -> Result<Box<dyn Io>, BoxError> {
        let stream = match self.node.address() {
            Address::Socket(address) => {
                let endpoint = self.node.endpoint();
                let addresses = iter::once(address).chain(endpoint.alternatives.iter());
                happy_eyeballs::connect(addresses.copied().collect()).await?
            }
            Address::Name { host, port } => {
                let addresses = tokio::net::lookup_host((&**host, *port)).await?.collect();
                happy_eyeballs::connect(addresses).await?
            }
            #[cfg(unix)]
            Address::Unix(path) => {
                return Ok(Box::new(tokio::net::UnixStream::connect(path).await?));
            }
            other => return Err(format!("{other} cannot be connected to on this system").into()),
        };
        stream.set_nodelay(true)?;
        if let Some(idle) = self.options.keep_alive {
            let keep_alive = TcpKeepalive::new().with_time(idle);
            #[cfg(any(target_os = "linux", target_os = "macos", target_os = "windows"))]
            let keep_alive = keep_alive.with_interval(Duration::from_secs(1)).with_retries(3);
            SockRef::from(&stream).set_tcp_keepalive(&keep_alive)?;
        }
        Ok(Box::new(stream))
    }
}

impl Service<Uri> for Dial {
    type Response = Stream;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}
