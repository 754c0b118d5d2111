//! An HTTP server in a process of its own, for tests that stop or kill it. Prints its address.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncReadExt, stdin},
    net::TcpListener,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let parent_is_gone = async { stdin().read_to_end(&mut Vec::new()).await };
    tokio::select! {
        result = serve(listener) => result,
        _ = parent_is_gone => Ok(()),
    }
}

async fn serve(listener: TcpListener) -> std::io::Result<()> {
    loop {
        let (socket, _) = listener.accept().await?;
        tokio::spawn(async move {
            let answer = service_fn(async |_: Request<Incoming>| {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"here"))))
            });
            let server = Builder::new(TokioExecutor::new());
            // The test handles connections that break.
            _ = server.serve_connection(TokioIo::new(socket), answer).await;
        });
    }
}
