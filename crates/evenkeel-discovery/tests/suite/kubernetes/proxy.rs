//! A proxy to a real API server, over HTTP/1.1 without TLS, which can change one request.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
};

use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::{Client, client::Body};
use tokio::net::TcpListener;

pub(crate) struct Proxy {
    pub(crate) url: String,
    /// The next watch asks for changes after the very first version.
    pub(crate) is_late: Arc<AtomicBool>,
    /// How many watches have asked for that.
    pub(crate) expired: Arc<AtomicU32>,
}

impl Proxy {
    pub(crate) async fn to(client: Client) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let proxy = Self { url, is_late: Arc::default(), expired: Arc::default() };
        let (is_late, expired) = (proxy.is_late.clone(), proxy.expired.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (client, is_late, expired) = (client.clone(), is_late.clone(), expired.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (client, mut path) = (client.clone(), request.uri().to_string());
                    if path.contains("watch=true") && is_late.swap(false, Relaxed) {
                        let (before, _) = path.rsplit_once('=').unwrap();
                        path = format!("{before}=1");
                        expired.fetch_add(1, Relaxed);
                    }
                    async move {
                        let request = Request::get(path).body(Body::empty()).unwrap();
                        let (head, body) = client.send(request).await.unwrap().into_parts();
                        let mut response = Response::new(body);
                        *response.status_mut() = head.status;
                        Ok::<_, Infallible>(response)
                    }
                });
                let served = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(served);
            }
        });
        proxy
    }
}
