//! Endpoints from Kubernetes: the endpoint slices of a service, by a list and a watch.
//!
//! **When to use it.** For services in a cluster, from pods and from any machine that can reach its
//! API server. A change that the API server announces is reported within milliseconds.
//!
//! **When not.** Without the right to read endpoint slices. A headless service has its ready pods
//! in DNS, which [`Dns`](crate::Dns) reads, with the delay of its TTL.
//!
//! ```
//! use evenkeel::discovery::kubernetes::{ApiServer, Kubernetes};
//!
//! let web = Kubernetes::new(ApiServer::infer(), "web").namespace("shop").port("http");
//! # let _ = web;
//! ```
//!
//! With options:
//!
//! ```
//! use std::time::Duration;
//! use evenkeel::discovery::kubernetes::{ApiServer, Family, Kubernetes};
//!
//! let web = Kubernetes::new(ApiServer::in_cluster().timeout(Duration::from_secs(5)), "web")
//!     .port_number(8080)
//!     .family(Family::PreferIpv6)
//!     .zone("eu-1a")
//!     .hold(Duration::from_secs(10));
//! # let _ = web;
//! ```
//!
//! **Which endpoints.** Those of all slices of the service together. An endpoint that is ready has
//! weight 1. An endpoint that is not ready because it terminates, but still serves, has weight 0:
//! it gets no new requests and finishes what it has. Terminating endpoints are used only while none
//! is ready, as by kube-proxy since 1.26 (KEP-1669). A condition that a slice does not state counts
//! as ready, as serving and as not terminating. If a pod is in two slices, as while it moves, the
//! slice that was written last counts. If two pods have one address, the one that is ready counts.
//!
//! **Port.** It is chosen by its name in the service, or by its number in the pods, which is the
//! service's `targetPort`. Without either, the service has to have one port. Only TCP ports are
//! considered. A slice may have endpoints but not that port, as when a port is renamed slice by
//! slice. Then those of its endpoints that were in use stay in use, at the port that they had,
//! until they stop. If all slices are like that, the error is [`NoSuchPort`].
//!
//! **Addresses.** Of a pod with two address families, one is used, and the other may be its
//! alternative ([`Family`]). Zone hints are followed if this process's own
//! [`zone`](Kubernetes::zone) is set, by the rules of kube-proxy: if all endpoints have hints and
//! some are for this zone, these are used. The same holds for hints for [nodes](Kubernetes::node).
//!
//! **Metadata.** `kubernetes.pod`, `kubernetes.node`, `kubernetes.hostname`, `kubernetes.port` (its
//! name), `kubernetes.app_protocol`, and `kubernetes.terminating`. The zone is the endpoint's.
//!
//! **Rights.** Only to list and to watch endpoint slices in the namespace of the service:
//!
//! ```yaml
//! apiVersion: rbac.authorization.k8s.io/v1
//! kind: Role
//! metadata: { name: follow-services, namespace: shop }
//! rules:
//!   - apiGroups: [discovery.k8s.io]
//!     resources: [endpointslices]
//!     verbs: [list, watch]
//! ```
//!
//! **What it believes.** The first list is believed as it is, even if it is empty. Later, the loss
//! of all endpoints, and a list without some of them after the cluster's data was lost, are
//! believed when they still hold after [`hold`](Kubernetes::hold) (5 s). New endpoints are always
//! used at once.
//!
//! **On a bad day.** Refusals (401, 403, 429, 500), silence, and answers that are broken, garbled
//! or too large (64 MiB a page, 16 MiB an event) change nothing. The last set stays, the watchers
//! get the failure as an error, and it is logged once. Everything is listed again after 0.5 s to 10
//! s. If the server says how long to wait, it is after that time or up to half as much more. A
//! watch that the server ends as agreed continues at once where it was. If the server no longer
//! remembers the version, a fresh list is compared with the known one. A dead connection is noticed
//! by pings within 10 s, and a silent server within [`quiet`](Kubernetes::quiet).
//!
//! **What it costs.** One connection and one watch for each service, whatever the number of
//! balancers that share the handle, and a list each time a session begins. After the first list,
//! lists are read at the known version or a later one, which a server answers from memory. When an
//! endpoint cannot be reached, no list is asked for. Instead the watch is requested again where it
//! was, which shows whether the server answers: at once, and then after 1 s to 60 s, growing while
//! failures go on. Memory grows with the endpoints.
//!
//! **What the program has to choose.** As with every use of `kube`: which types of the Kubernetes
//! API are built, by a dependency such as `k8s-openapi = { version = "0.29", features = ["latest"]
//! }`, and the cryptography, by `CryptoProvider::install_default` of rustls. Any choice of types
//! will do: no type of the API is used here, and all clusters from 1.19 on are understood.

mod api_server;
mod client;
mod error;
mod reading;
mod slice;
mod source;
mod table;

use std::{sync::Arc, time::Duration};

use self::{reading::PortChoice, source::KubernetesSource};
use crate::{settings::follows, watch::Reconnect};

pub use self::{
    api_server::ApiServer,
    error::{NoAccess, NoSuchPort, ServerRefused, ServerTimeout},
    reading::Family,
};

/// Follows the endpoints of a service in Kubernetes.
///
/// See the [module docs](self). A clone shares the session of its original.
#[derive(Clone, Debug)]
pub struct Kubernetes {
    reconnect: Reconnect<KubernetesSource>,
}

impl Kubernetes {
    /// The endpoints of `service`.
    ///
    /// # Panics
    /// If it is not a valid name of a service.
    #[must_use]
    pub fn new(server: ApiServer, service: impl Into<Arc<str>>) -> Self {
        let service = service.into();
        assert!(is_name(&service), "`{service}` is no name of a service");
        Self { reconnect: Reconnect::new(KubernetesSource::new(server, service)) }
    }

    /// Sets the namespace. Default: that of the kubeconfig's context, or of the pod.
    ///
    /// # Panics
    /// If it is not a valid name of a namespace.
    #[must_use]
    pub fn namespace(self, name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        assert!(is_name(&name), "`{name}` is no name of a namespace");
        self.with(|source| source.namespace = Some(name))
    }

    /// Takes the port that has this name in the service. Default: its only port.
    #[must_use]
    pub fn port(self, name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        self.with(|source| source.reading.port = PortChoice::Name(name))
    }

    /// Takes the port that has this number in the pods. Default: the service's only port.
    ///
    /// # Panics
    /// If it is 0.
    #[must_use]
    pub fn port_number(self, number: u16) -> Self {
        assert!(0 < number, "port 0 cannot be connected to");
        self.with(|source| source.reading.port = PortChoice::Number(number))
    }

    /// Sets which addresses of pods with two families are used. Default: [`Family::PreferIpv4`].
    #[must_use]
    pub fn family(self, family: Family) -> Self {
        self.with(|source| source.reading.family = family)
    }

    /// Follows zone hints for this zone, in which the process runs. Default: none are followed.
    ///
    /// Kubernetes sets them for services with `trafficDistribution`. A pod does not know its own
    /// zone; it is a label of its node.
    #[must_use]
    pub fn zone(self, zone: impl Into<Arc<str>>) -> Self {
        let zone = zone.into();
        self.with(|source| source.reading.zone = Some(zone))
    }

    /// Follows node hints for this node, on which the process runs. Default: none are followed.
    #[must_use]
    pub fn node(self, node: impl Into<Arc<str>>) -> Self {
        let node = node.into();
        self.with(|source| source.reading.node = Some(node))
    }

    /// Sets how long a watch lasts before it is requested again. Default: 5 min, up to a quarter
    /// less.
    ///
    /// A short one makes more requests without need. With a long one, clients stay for long where
    /// they are although another API server could share the load.
    ///
    /// # Panics
    /// If it is below 1 s.
    #[must_use]
    pub fn wait(self, wait: Duration) -> Self {
        assert!(Duration::from_secs(1) <= wait, "a watch of {wait:?}");
        self.with(|source| source.wait = wait)
    }

    /// Sets how long a watch may be silent before it is requested again. Default: 90 s.
    ///
    /// API servers report each minute how far they are. It matters where a proxy hides that the
    /// server is gone; where HTTP/2 reaches the server, pings notice that.
    ///
    /// # Panics
    /// If it is below 100 ms.
    #[must_use]
    pub fn quiet(self, time: Duration) -> Self {
        assert!(Duration::from_millis(100) <= time, "a silence of {time:?}");
        self.with(|source| source.quiet = time)
    }
}

follows!(Kubernetes by KubernetesSource, with backoff hold max_stale seed);

/// Whether a text is a valid name of a service or a namespace: a label of DNS (RFC 1123).
pub(crate) fn is_name(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let ends_well = !text.starts_with('-') && !text.ends_with('-');
    ends_well && (1..=63).contains(&text.len()) && text.bytes().all(is_inner)
}
