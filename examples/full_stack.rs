//! All parts together: axum servers that limit themselves and drain, and a client whose callers see
//! no error while one server fails, one dies, one is replaced and one joins.
//!
//! `cargo run --example full_stack`

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use bytes::Bytes;
use evenkeel::{
    active_health::ActiveHealthLayer,
    admission::LoadShedLayer,
    balance::BalanceLayer,
    breaker::CircuitBreakerLayer,
    concurrency::ConcurrencyLimitLayer,
    core::{discover::Discovery, retry::Budget},
    deadline::DeadlineLayer,
    discovery::channel,
    fail_fast::FailFastLayer,
    http::{
        Drain, DrainHandle, ErrorToResponseLayer, HttpConnector, HttpDeadline, HttpProbe,
        HttpRetry, HttpTraffic,
    },
    observe::ObserveLayer,
    outlier::OutlierLayer,
    retry::RetryLayer,
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use tokio::{net::TcpListener, task::JoinSet, time::sleep};
use tower::{ServiceBuilder, ServiceExt, service_fn, util::BoxCloneSyncService};

mod common;

type Client = BoxCloneSyncService<Request<Empty<Bytes>>, Response<Bytes>, common::BoxError>;

/// The client: read it from top to bottom, as a request travels.
fn client(discovery: impl Discovery) -> Client {
    let stack = ServiceBuilder::new()
        .layer(ObserveLayer::new().client("example"))
        .layer(DeadlineLayer::new(Duration::from_secs(2)).carry(HttpDeadline))
        .layer(FailFastLayer::new(Duration::from_secs(1)))
        .layer(
            RetryLayer::new(Budget::share(20.0))
                .rules(HttpRetry::new().statuses([500, 502, 503, 504]))
                .max_attempts(4)
                .attempt_timeout(Duration::from_millis(300)),
        )
        .layer(BalanceLayer::peak_ewma(discovery))
        .layer(ObserveLayer::new().client("example"))
        .layer(
            OutlierLayer::new()
                .consecutive_errors(3)
                .consecutive_local_errors(1)
                .max_ejected_percent(50)
                .ejection_time(Duration::from_secs(1), Duration::from_secs(30)),
        )
        .layer(
            ActiveHealthLayer::new(HttpProbe::new("/ready")).interval(Duration::from_millis(250)),
        )
        .layer(CircuitBreakerLayer::new())
        .layer(ConcurrencyLimitLayer::fixed(64))
        .service(HttpConnector::new().authority("work.internal").watch_connections());
    BoxCloneSyncService::new(service_fn(move |request: Request<Empty<Bytes>>| {
        let call = stack.clone().oneshot(request);
        async move {
            let (head, body) = call.await?.into_parts();
            Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
        }
    }))
}

/// A server: it sheds load that would wait too long, reports whether it is ready, and drains.
struct Server {
    address: SocketAddr,
    is_failing: Arc<AtomicBool>,
    drain: DrainHandle,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start() -> Result<Self, common::BoxError> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let is_failing = Arc::new(AtomicBool::new(false));
        let answer = {
            let is_failing = is_failing.clone();
            move || async move {
                sleep(Duration::from_millis(2)).await;
                if is_failing.load(Relaxed) {
                    return (StatusCode::INTERNAL_SERVER_ERROR, "broken");
                }
                (StatusCode::OK, "done")
            }
        };
        let admission = ServiceBuilder::new()
            .layer(ErrorToResponseLayer::new())
            .layer(DeadlineLayer::new(Duration::from_secs(30)).carry(HttpDeadline))
            .layer(LoadShedLayer::fixed(64).traffic(HttpTraffic::new()).shared());
        let drain = Drain::new().wait(Duration::from_millis(300));
        let handle = drain.handle();
        let app = Router::new()
            .route("/work", get(answer))
            .layer(admission)
            .route_service("/ready", drain.readiness());
        let task = tokio::spawn(async move {
            drain.serve(listener, app).await.expect("loopback works");
        });
        Ok(Self { address, is_failing, drain: handle, task })
    }
}

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let (registry, discovery) = channel();
    let mut servers = Vec::new();
    for _ in 0..5 {
        servers.push(Server::start().await?);
    }
    registry.set(servers.iter().map(|server| server.address));
    let client = client(discovery);

    let (answered, is_over) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let (client, answered, is_over) = (client.clone(), answered.clone(), is_over.clone());
        callers.spawn(async move {
            while !is_over.load(Relaxed) {
                let request = Request::get("/work").body(Empty::new())?;
                let response = client.clone().oneshot(request).await?;
                assert_eq!(response.status(), 200, "what callers see");
                answered.fetch_add(1, Relaxed);
            }
            Ok::<_, common::BoxError>(())
        });
    }

    let pause = || sleep(Duration::from_millis(500));
    pause().await;
    println!("{:5} answered; now one answers 500", answered.load(Relaxed));
    servers[0].is_failing.store(true, Relaxed);
    pause().await;
    println!("{:5} answered; now one dies", answered.load(Relaxed));
    servers[1].task.abort();
    pause().await;
    println!("{:5} answered; now one is replaced", answered.load(Relaxed));
    let new = Server::start().await?;
    registry.insert(new.address);
    registry.remove(&servers[2].address.into());
    servers[2].drain.start();
    pause().await;
    println!("{:5} answered; now the first works again", answered.load(Relaxed));
    servers[0].is_failing.store(false, Relaxed);
    pause().await;

    is_over.store(true, Relaxed);
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    println!("{:5} answered, and no caller saw an error", answered.load(Relaxed));
    Ok(())
}
