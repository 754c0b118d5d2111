//! A server of HTTP/1.1 and HTTP/2 that answers every request in one wrong way.
#![allow(dead_code, reason = "no test needs all of it")]

use std::{convert::Infallible, io};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use tokio::{net::TcpListener, task::JoinHandle};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Status(u16),
    /// A redirect, which is not followed.
    Redirect,
    /// An HTML page, as from a proxy in between.
    Page,
    /// Success without a body.
    Nothing,
    /// A beginning, and then the connection breaks.
    Half,
    /// A list that never ends.
    Endless,
    /// A message that announces 4 GiB.
    Huge,
    /// An invalid message.
    Garbage,
    /// A refusal of gRPC with this status.
    Refusal(u16),
    /// No answer.
    Silence,
}

pub(crate) struct Faulty {
    pub(crate) url: String,
    task: JoinHandle<()>,
}

impl Faulty {
    pub(crate) async fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = service_fn(move |_: Request<Incoming>| answer(fault));
                tokio::spawn(async move {
                    let builder = Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { url, task }
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

async fn answer(fault: Fault) -> Result<Response<Body>, Infallible> {
    let response = Response::builder().header("x-consul-index", "9");
    let (response, body) = match fault {
        Fault::Status(status) => (response.status(status), full("refused")),
        Fault::Redirect => {
            (response.status(307).header("location", "http://127.0.0.1:9/elsewhere"), full(""))
        }
        Fault::Page => (response.header("content-type", "text/html"), full("<html>proxy</html>")),
        Fault::Nothing => (response, full("")),
        Fault::Half => {
            let frames = [
                Ok(Frame::data(Bytes::from_static(b"[{\"Node\":{\"No"))),
                Err(io::Error::other("the end")),
            ];
            (response, StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync())
        }
        Fault::Endless => {
            let spaces = Bytes::from(vec![b' '; 1 << 20]);
            let first = std::iter::once(Bytes::from_static(b"["));
            let frames = first.chain(std::iter::repeat(spaces)).map(|data| Ok(Frame::data(data)));
            (response, StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync())
        }
        Fault::Huge => (
            response.header("content-type", "application/grpc"),
            full(&b"\0\xff\xff\xff\xff\x0a\x04ab"[..]),
        ),
        Fault::Garbage => (
            response.header("content-type", "application/grpc"),
            full(&b"\0\0\0\0\x06\xff\xff\xff\xff\xff\xff"[..]),
        ),
        Fault::Refusal(status) => (
            response
                .header("content-type", "application/grpc")
                .header("grpc-status", status)
                .header("grpc-message", "refused"),
            Empty::new().map_err(|never| match never {}).boxed_unsync(),
        ),
        Fault::Silence => std::future::pending().await,
    };
    Ok(response.body(body).unwrap())
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}
