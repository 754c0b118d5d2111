//! One backend, in a process of its own. It answers requests and registers itself.
//!
//! Commands are lines on its standard input: `enter`, `weight N`, `leave`. The process ends when
//! its input or its parent ends, so that none is left over.

use std::{
    convert::Infallible,
    future::ready,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use evenkeel::discovery::{
    consul::Agents,
    etcd::Cluster,
    register::{ConsulRegistry, Entry, EtcdRegistry, Registered, Registration, Registry},
};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, BufReader, stdin},
    net::TcpListener,
    time::{sleep, timeout},
};

use crate::{
    BoxError,
    lines::{end_with_parent, tell},
    moment::Moment,
};

/// Argument that makes this process a backend: `--backend` and its [`Settings`] in JSON.
pub(crate) const ARGUMENT: &str = "--backend";

/// The path of health checks.
pub(crate) const HEALTH_PATH: &str = "/healthz";

const GRPC: &str = "application/grpc";

/// How long an answer takes.
const SERVICE_TIME: Duration = Duration::from_millis(2);

/// Requests that are not answered within this time are cut off.
const STOPS_WITHIN: Duration = Duration::from_secs(2);

/// The settings of a backend.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) address: SocketAddr,
    pub(crate) service: String,
    /// Where it registers itself, if it does.
    pub(crate) register: Option<Register>,
    pub(crate) tags: Vec<String>,
    pub(crate) ttl: Duration,
    /// How long it goes on serving after it has deregistered.
    pub(crate) propagation: Duration,
}

/// A registry to register in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Register {
    Consul(String),
    Etcd(Vec<String>),
}

/// What a backend reports.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Told {
    Ready(SocketAddr),
    /// It has begun to carry out a command.
    Began(Moment),
    Entered(Moment),
    /// The first and the last request that arrived, and the number of requests.
    Requests(Option<(Moment, Moment)>, usize),
}

type Seen = Arc<Mutex<(Option<(Moment, Moment)>, usize)>>;

/// Serves until the process is told to stop.
pub(crate) fn run(words: &[String]) -> Result<(), BoxError> {
    end_with_parent()?;
    let settings: Settings = serde_json::from_str(words.first().ok_or("settings are missing")?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(settings))
}

async fn serve(settings: Settings) -> Result<(), BoxError> {
    let listener = TcpListener::bind(settings.address).await?;
    let address = listener.local_addr()?;
    let (seen, connections) = (Seen::default(), GracefulShutdown::new());
    tell(&Told::Ready(address));
    tokio::select! {
        () = accept(listener, &seen, &connections) => {}
        is_left = obey(&settings, address) => {
            if !is_left? {
                return Ok(());
            }
        }
    }
    // Requests that have not ended by then are cut off.
    _ = timeout(STOPS_WITHIN, connections.shutdown()).await;
    report(&seen);
    Ok(())
}

/// Carries out commands. Returns true when it is told to leave.
async fn obey(settings: &Settings, address: SocketAddr) -> Result<bool, BoxError> {
    let mut lines = BufReader::new(stdin()).lines();
    let mut registered: Option<Registered> = None;
    while let Some(line) = lines.next_line().await? {
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match word {
            "enter" => {
                tell(&Told::Began(Moment::now()));
                let entered = register(settings, address)?;
                if let Some(entered) = &entered {
                    entered.entered().await;
                }
                tell(&Told::Entered(Moment::now()));
                registered = entered;
            }
            "weight" => {
                let weight = rest.parse()?;
                tell(&Told::Began(Moment::now()));
                registered.as_ref().ok_or("it has not entered")?.weight(weight);
            }
            "leave" => {
                tell(&Told::Began(Moment::now()));
                match registered.take() {
                    Some(registered) => registered.leave().await,
                    None => sleep(settings.propagation).await,
                }
                return Ok(true);
            }
            _ => {}
        }
    }
    Ok(false)
}

fn register(settings: &Settings, address: SocketAddr) -> Result<Option<Registered>, BoxError> {
    let mut entry = Entry::new(&*settings.service, address.into());
    entry.tags.clone_from(&settings.tags);
    Ok(match &settings.register {
        Some(Register::Consul(agent)) => {
            Some(start(ConsulRegistry::new(Agents::at([&**agent])?), entry, settings))
        }
        Some(Register::Etcd(members)) => {
            let cluster = Cluster::at(members.iter().map(|member| &**member))?;
            Some(start(EtcdRegistry::new(cluster), entry, settings))
        }
        None => None,
    })
}

fn start(registry: impl Registry, entry: Entry, settings: &Settings) -> Registered {
    let registration = Registration::new(registry, entry);
    registration.ttl(settings.ttl).propagation(settings.propagation).start()
}

fn report(seen: &Seen) {
    let (span, count) = *seen.lock().unwrap_or_else(PoisonError::into_inner);
    tell(&Told::Requests(span, count));
}

/// Waits forever. When it is dropped, connections are refused.
async fn accept(listener: TcpListener, seen: &Seen, connections: &GracefulShutdown) {
    let server = Builder::new(TokioExecutor::new());
    loop {
        // A connection that closes before it is accepted needs no handling.
        let Ok((socket, _)) = listener.accept().await else { continue };
        _ = socket.set_nodelay(true);
        let seen = seen.clone();
        let answer = service_fn(move |request| answer(request, seen.clone()));
        let connection = server.serve_connection(TokioIo::new(socket), answer).into_owned();
        tokio::spawn(connections.watch(connection));
    }
}

async fn answer(
    request: Request<Incoming>,
    seen: Seen,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    if request.uri().path() == HEALTH_PATH {
        return Ok(Response::new(Full::default().boxed()));
    }
    let now = Moment::now();
    {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.0 = Some((seen.0.map_or(now, |(first, _)| first), now));
        seen.1 += 1;
        if seen.1 == 1 {
            tell(&Told::Requests(seen.0, 1));
        }
    }
    sleep(SERVICE_TIME).await;
    let is_grpc = request.headers().get(header::CONTENT_TYPE).is_some_and(|value| value == GRPC);
    if !is_grpc {
        return Ok(Response::new(Full::default().boxed()));
    }
    // An empty message and the status OK.
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(Bytes::from_static(&[0; 5])).with_trailers(ready(Some(Ok(trailers))));
    let mut response = Response::new(body.boxed());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(GRPC));
    Ok(response)
}
