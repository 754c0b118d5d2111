//! One HTTP server, in a process of its own, so that it can really be killed.

use std::{
    convert::Infallible,
    net::SocketAddr,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use evenkeel::http::Drain;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, Stdin, stdin},
    net::TcpListener,
    process::{Child, ChildStdin, Command},
};

use crate::BoxError;

/// The message of the parent that makes a server hang.
const HANG: &str = "hang";

/// Serves until the parent ends. Prints its address, and hangs on command.
pub(crate) async fn serve(delay_ms: u64) -> Result<(), BoxError> {
    let hangs = Arc::new(AtomicBool::new(false));
    let answer = {
        let hangs = hangs.clone();
        move |_: Request<Incoming>| {
            let hangs = hangs.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(delay_ms)).await;
                if hangs.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"done\n"))))
            }
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);

    tokio::select! {
        result = Drain::new().serve(listener, tower::service_fn(answer)) => Ok(result.map(drop)?),
        () = obey(BufReader::new(stdin()).lines(), &hangs) => Ok(()),
    }
}

/// Follows the parent's commands until the pipe closes, which also happens when the parent dies.
async fn obey(mut orders: Lines<BufReader<Stdin>>, hangs: &AtomicBool) {
    while let Ok(Some(order)) = orders.next_line().await {
        hangs.store(order == HANG, Ordering::Relaxed);
    }
}

/// A server as its parent sees it. Killed on drop.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    process: Child,
    orders: ChildStdin,
}

impl Backend {
    /// Starts a server with the service time `delay`.
    pub(crate) async fn start(delay: Duration) -> Result<Self, BoxError> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--backend", &delay.as_millis().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let orders = process.stdin.take().ok_or("the server has no stdin")?;
        let output = process.stdout.take().ok_or("the server has no stdout")?;
        let first = BufReader::new(output).lines().next_line().await?;
        let address = first.ok_or("the server ended before it listened")?.parse()?;
        Ok(Self { address, process, orders })
    }

    /// Kills it, so that open connections are reset.
    pub(crate) async fn kill(&mut self) {
        // It may be dead already.
        _ = self.process.kill().await;
    }

    /// Makes it accept requests and never answer.
    pub(crate) async fn hang(&mut self) {
        _ = self.orders.write_all(format!("{HANG}\n").as_bytes()).await;
        _ = self.orders.flush().await;
    }
}
