//! Accepts connections until it is told to close.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use evenkeel_core::BoxError;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tower_layer::Layer;
use tower_service::Service;

use super::{
    connection::{Watched, drive},
    layer::DrainLayer,
    state::{DrainHandle, Phase, Visits},
};

/// A server of HTTP/1.1 and HTTP/2. Dropping it drops its connections and their requests: hyper ends
/// the streams of a connection that is gone.
pub(super) struct Server<S> {
    listener: TcpListener,
    service: S,
    handle: DrainHandle,
    max_idle: Duration,
    connections: JoinSet<()>,
}

impl<S, B> Server<S>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    pub(super) fn new(
        listener: TcpListener,
        service: S,
        handle: DrainHandle,
        max_idle: Duration,
    ) -> Self {
        Self { listener, service, handle, max_idle, connections: JoinSet::new() }
    }

    /// Serves until it has to close and all connections have ended.
    pub(super) async fn run(self) -> Result<(), Infallible> {
        let Self { listener, service, handle, max_idle, mut connections } = self;
        let mut closing = pin!(handle.reached(Phase::Closing));
        loop {
            tokio::select! {
                () = &mut closing => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let (service, handle) = (service.clone(), handle.clone());
                        connections.spawn(serve(stream, service, handle, max_idle));
                    }
                    // An error of one connection needs nothing. One of the process may pass: too many files.
                    Err(error) if is_of_connection(&error) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
        Ok(())
    }
}

async fn serve<S, B>(stream: TcpStream, service: S, handle: DrainHandle, max_idle: Duration)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let _ = stream.set_nodelay(true);
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    let visits = Arc::<Visits>::default();
    let counting = DrainLayer::of_connection(handle.0.clone(), visits.clone());
    let service = TowerToHyperService::new(counting.layer(service));
    let (stream, line) = Watched::new(stream);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    drive(connection.into_owned(), line, visits, handle, max_idle).await;
}

fn is_of_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};

    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
