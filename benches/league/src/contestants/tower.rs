//! tower's own parts: p2c with Peak EWMA behind a `Buffer`, its retry with its budget, its timeout.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use evenkeel_rig::load::Client;
use futures_util::{FutureExt, TryFutureExt, future::BoxFuture};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use tokio::{
    sync::mpsc::{UnboundedSender, unbounded_channel},
    time::Sleep,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::{
    ServiceBuilder, ServiceExt,
    balance::p2c::Balance,
    buffer::Buffer,
    discover::Change,
    load::{CompleteOnResponse, PeakEwma},
    retry::{
        Policy, RetryLayer,
        backoff::{Backoff, ExponentialBackoff, ExponentialBackoffMaker, MakeBackoff},
        budget::{Budget, TpsBudget},
    },
    service_fn,
    timeout::TimeoutLayer,
    util::BoxCloneSyncService,
};

use super::{
    Announce, Contestant, Running,
    hyper::{Plain, plain},
};
use crate::{
    BoxError,
    scene::{ENDPOINTS, Scene},
};

/// The same as ours.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(300);
const RETRIES: usize = 3;

type Ask = Request<Empty<Bytes>>;
type Leaf = PeakEwma<BoxCloneSyncService<Ask, Response<Incoming>, BoxError>>;
type Changes = UnboundedSender<Result<Change<usize, Leaf>, Infallible>>;

#[derive(Debug)]
pub(crate) struct Tower;

impl Contestant for Tower {
    fn name(&self) -> &'static str {
        "tower"
    }

    fn about(&self) -> &'static str {
        "tower: Retry with TpsBudget, Buffer, p2c Balance with PeakEwma, Timeout; informed of leavers"
    }

    fn start<'a>(&'a self, scene: &'a Scene) -> BoxFuture<'a, Result<Running, BoxError>> {
        async move {
            let (changes, discovered) = unbounded_channel();
            let addresses = scene.addresses();
            let mut announce = Announced { changes, addresses, client: plain(scene.protocol) };
            for endpoint in 0..ENDPOINTS {
                announce.insert(endpoint)?;
            }
            let balance = Balance::new(UnboundedReceiverStream::new(discovered));
            let mut backoff = ExponentialBackoffMaker::new(
                Duration::from_millis(5),
                Duration::from_millis(50),
                0.99,
                tower::util::rng::HasherRng::default(),
            )?;
            let policy = Retries {
                budget: Arc::new(TpsBudget::new(Duration::from_secs(10), 10, 0.2)),
                left: RETRIES,
                backoff: backoff.make_backoff(),
            };
            let service = ServiceBuilder::new()
                .layer(RetryLayer::new(policy))
                .service(Buffer::new(balance, 1_024));
            Ok(Running { client: client(service), announce: Box::new(announce), proxy: None })
        }
        .boxed()
    }
}

fn client<S>(service: S) -> Client
where
    S: tower::Service<Ask, Response = Response<Incoming>, Error = BoxError>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    Arc::new(move |number| {
        let service = service.clone();
        async move {
            let request = Request::get(format!("/{number}")).body(Empty::new())?;
            let response = service.oneshot(request).await?;
            let status = response.status().as_u16();
            response.into_body().collect().await?;
            Ok(status)
        }
        .boxed()
    })
}

/// Retries errors and statuses of 500 and above, within the budget.
#[derive(Clone)]
struct Retries {
    budget: Arc<TpsBudget>,
    left: usize,
    backoff: ExponentialBackoff,
}

impl Policy<Ask, Response<Incoming>, BoxError> for Retries {
    type Future = Sleep;

    fn retry(
        &mut self,
        _: &mut Ask,
        result: &mut Result<Response<Incoming>, BoxError>,
    ) -> Option<Sleep> {
        let is_failed =
            result.as_ref().map_or(true, |response| response.status().is_server_error());
        if !is_failed {
            self.budget.deposit();
            return None;
        }
        if self.left == 0 || !self.budget.withdraw() {
            return None;
        }
        self.left -= 1;
        Some(self.backoff.next_backoff())
    }

    fn clone_request(&mut self, request: &Ask) -> Option<Ask> {
        Some(request.clone())
    }
}

struct Announced {
    changes: Changes,
    addresses: [SocketAddr; ENDPOINTS],
    client: Plain,
}

impl Announce for Announced {
    fn remove(&mut self, endpoint: usize) -> Result<(), BoxError> {
        Ok(self.changes.send(Ok(Change::Remove(endpoint)))?)
    }

    fn insert(&mut self, endpoint: usize) -> Result<(), BoxError> {
        let leaf = leaf(self.client.clone(), self.addresses[endpoint]);
        Ok(self.changes.send(Ok(Change::Insert(endpoint, leaf)))?)
    }
}

/// The service of one endpoint.
fn leaf(client: Plain, address: SocketAddr) -> Leaf {
    const RTT: Duration = Duration::from_millis(5);
    const DECAY: Duration = Duration::from_secs(10);
    let send = service_fn(move |mut request: Ask| {
        let uri: Result<Uri, _> = format!("http://{address}{}", request.uri().path()).parse();
        let client = client.clone();
        async move {
            *request.uri_mut() = uri?;
            client.request(request).map_err(BoxError::from).await
        }
    });
    let send = ServiceBuilder::new().layer(TimeoutLayer::new(ATTEMPT_TIMEOUT)).service(send);
    let send = BoxCloneSyncService::new(send);
    PeakEwma::new(send, RTT, DECAY.as_nanos() as f64, CompleteOnResponse::default())
}
