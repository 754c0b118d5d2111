//! A client that has no file descriptor left. It is alone in its process, since it takes all of them.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::{
    convert::Infallible,
    fs::File,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use evenkeel_core::{
    endpoint::{Address, Endpoint},
    error::cause,
    health::check::Probe,
    node::{Gate, Node},
};
use evenkeel_http::{ConnectError, HttpConnector, HttpProbe};
use evenkeel_layers::{
    active_health::ActiveHealthLayer, balance::BalanceLayer, breaker::CircuitBreakerLayer,
    outlier::OutlierLayer,
};
use http::{Request, Response, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use tokio::{net::TcpListener, sync::mpsc};
use tower::{ServiceBuilder, ServiceExt};

const ENDPOINTS: usize = 5;
const CALLS: usize = 50;

async fn server(asked: Arc<AtomicUsize>) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::new(listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            // Sometimes it has no descriptors left either.
            let Ok((stream, _)) = listener.accept().await else { continue };
            let asked = asked.clone();
            let service = service_fn(move |request: Request<_>| {
                let _: &Request<hyper::body::Incoming> = &request;
                asked.fetch_add(usize::from(request.uri().path() == "/"), SeqCst);
                async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) }
            });
            let server = http1::Builder::new();
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    endpoint
}

/// Sets a low limit of descriptors, and takes all of them.
fn take_all() -> (Vec<File>, Rlimit) {
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..before }).unwrap();
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    (taken, before)
}

#[tokio::test]
async fn no_endpoint_is_blamed_for_a_lack_of_file_descriptors() {
    let asked = [(); ENDPOINTS].map(|()| Arc::<AtomicUsize>::default());
    let mut endpoints = Vec::new();
    for asked in &asked {
        endpoints.push(server(asked.clone()).await);
    }
    // Separate clients: outlier detection does not count calls of a client after its checks have failed.
    let client = ServiceBuilder::new()
        .layer(BalanceLayer::round_robin(endpoints.clone()))
        .layer(OutlierLayer::new().consecutive_local_errors(3).max_ejected_percent(50))
        .layer(CircuitBreakerLayer::new().consecutive_failures(3))
        .service(HttpConnector::new());
    let (failed, mut failures) = mpsc::unbounded_channel();
    let probe = Arc::new(HttpProbe::new("/healthy"));
    let probe = move |node: Arc<Node>| {
        let (probe, failed) = (probe.clone(), failed.clone());
        async move {
            let found = probe.probe(&node).await;
            // Later ones do not matter.
            let _ = found.is_err().then(|| failed.send(()));
            found
        }
    };
    let mut checked = ServiceBuilder::new()
        .layer(BalanceLayer::round_robin(endpoints))
        .layer(ActiveHealthLayer::new(probe).interval(Duration::from_millis(5)).fall(1))
        .service(HttpConnector::<Empty<Bytes>>::new());
    // Closes its connection, so that each call needs a new one.
    let call = || {
        let request = Request::get("/").header(header::CONNECTION, "close");
        client.clone().oneshot(request.body(Empty::<Bytes>::new()).unwrap())
    };

    let (taken, before) = take_all();
    for _ in 0..CALLS {
        let error = call().await.unwrap_err();
        let error = cause::<ConnectError>(error.as_ref()).expect("no connection");
        let reason = cause::<io::Error>(error).unwrap().raw_os_error();
        assert_eq!(reason, Some(Errno::MFILE.raw_os_error()));
    }
    assert_eq!(closed(&client.nodes()), []);
    checked.ready().await.unwrap();
    // The first probes have been judged once there are this many.
    for _ in 0..2 * ENDPOINTS {
        failures.recv().await.unwrap();
    }
    assert_eq!(closed(&checked.nodes()), []);
    drop(taken);
    setrlimit(Resource::Nofile, before).unwrap();

    for _ in 0..CALLS {
        call().await.unwrap().into_body().collect().await.unwrap();
    }
    let asked = asked.map(|asked| asked.load(SeqCst));
    assert_eq!(asked, [CALLS / ENDPOINTS; ENDPOINTS], "each of them, as if nothing had been");
}

/// The endpoints that health closes, and the gates that do so.
fn closed(nodes: &[Arc<Node>]) -> Vec<(Address, Gate)> {
    let gates = [Gate::Ejected, Gate::Breaker, Gate::Unhealthy];
    let pairs = nodes.iter().flat_map(|node| gates.map(|gate| (node, gate)));
    pairs
        .filter(|(node, gate)| node.is_closed_by(*gate))
        .map(|(node, gate)| (node.address().clone(), gate))
        .collect()
}
