//! The rig's own client for registries: short requests over HTTP.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tokio::time::timeout;

use crate::BoxError;

/// A request to a server that hangs fails after this time.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client of the registries' HTTP interfaces.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Admin {
    pub(crate) fn new() -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http() }
    }

    pub(crate) async fn get(&self, server: SocketAddr, path: &str) -> Result<Value, BoxError> {
        self.ask(Method::GET, server, path, Bytes::new()).await
    }

    pub(crate) async fn put(
        &self,
        server: SocketAddr,
        path: &str,
        body: &Value,
    ) -> Result<Value, BoxError> {
        self.ask(Method::PUT, server, path, body.to_string().into()).await
    }

    pub(crate) async fn post(
        &self,
        server: SocketAddr,
        path: &str,
        body: &Value,
    ) -> Result<Value, BoxError> {
        self.ask(Method::POST, server, path, body.to_string().into()).await
    }

    async fn ask(
        &self,
        method: Method,
        server: SocketAddr,
        path: &str,
        body: Bytes,
    ) -> Result<Value, BoxError> {
        let request = Request::builder().method(method).uri(format!("http://{server}{path}"));
        let answered = async {
            let response = self.client.request(request.body(Full::new(body))?).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            if !status.is_success() {
                let text = String::from_utf8_lossy(&body).into_owned();
                return Err(BoxError::from(format!("{path}: {status}: {text}")));
            }
            Ok(serde_json::from_slice(&body).unwrap_or_default())
        };
        timeout(PATIENCE, answered).await?
    }
}
