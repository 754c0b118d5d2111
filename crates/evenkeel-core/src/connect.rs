//! How a node is spoken to.

use std::sync::Arc;

use crate::{node::Node, traffic::AnyTraffic};

/// Makes the service that speaks to a node: sync, infallible, cheap.
///
/// It stands below the balancer and is asked once for each node. It connects lazily: whatever can
/// fail or take time belongs in the service that it makes. A closure is a `Connect`:
///
/// ```
/// use std::sync::Arc;
/// use evenkeel::core::{connect::Connect, node::Node};
///
/// let connect = |node: &Arc<Node>| node.address().to_string();
/// let node = Arc::new(Node::new("10.0.0.1:80".parse().unwrap()));
/// assert_eq!(connect.connect(&node), "10.0.0.1:80");
/// ```
///
/// Of the answers of a closure's service, a balancer knows only whether they are errors. A service
/// that speaks HTTP or gRPC, such as a `Channel` of tonic, is put into `HttpLeaf` of evenkeel-http,
/// which reads its status.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say how an endpoint is spoken to",
    label = "no `Connect`",
    note = "a tower layer below a balancer is lifted, one instance for each endpoint: `PerEndpoint::new(layer)`",
    note = "a service at the bottom becomes one for each endpoint: `HttpConnector`, `SharedClient::new(client)`, or \
            a closure `|node: &Arc<Node>| service`"
)]
pub trait Connect {
    /// The service that speaks to one node.
    type Service;
    /// What the balancer may read from the requests and responses of this service.
    type Traffic;

    /// The service for `node`. It should close its connections when it is dropped.
    fn connect(&self, node: &Arc<Node>) -> Self::Service;

    /// What the balancer may read from the requests and responses.
    fn traffic(&self) -> Self::Traffic;
}

#[diagnostic::do_not_recommend]
impl<F, S> Connect for F
where
    F: Fn(&Arc<Node>) -> S,
{
    type Service = S;
    type Traffic = AnyTraffic;

    fn connect(&self, node: &Arc<Node>) -> S {
        self(node)
    }

    fn traffic(&self) -> AnyTraffic {
        AnyTraffic
    }
}
