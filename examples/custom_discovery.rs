//! A custom discovery: a registry that pushes one line for each change, over TCP.
//!
//! Only the protocol of the registry has to be written. `Reconnect` reconnects, backs off, keeps
//! the last good set, and shares one session among all watchers.

use std::net::SocketAddr;

use bytes::Bytes;
use evenkeel::{
    balance::BalanceLayer,
    discovery::watch::{Reconnect, Session, Source},
    http::HttpConnector,
};
use http::Request;
use http_body_util::Empty;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tower::{Layer, ServiceExt};

mod common;

/// Reads lines such as `join 10.0.0.1:80` and `leave 10.0.0.1:80`. `all` ends the initial list.
#[derive(Clone, Debug)]
struct LineRegistry {
    address: SocketAddr,
}

impl Source for LineRegistry {
    fn origin(&self) -> String {
        format!("line registry at {}", self.address)
    }

    async fn session(&mut self, session: &mut Session) -> Result<(), common::BoxError> {
        let mut lines = BufReader::new(TcpStream::connect(self.address).await?).lines();
        // The initial list, until it is complete: a partial set is never published.
        let mut listed = Some(Vec::new());
        while let Some(line) = lines.next_line().await? {
            match (line.split_once(' '), &mut listed) {
                (Some(("join", address)), Some(listed)) => listed.push(address.parse()?),
                (Some(("join", address)), None) => session.insert(address.parse()?),
                (Some(("leave", address)), None) => session.remove(&address.parse()?),
                (None, _) if line == "all" => session.set(listed.take().unwrap_or_default()),
                _ => return Err(format!("no such line in this protocol: {line:?}").into()),
            }
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), common::BoxError> {
    let (one, two) = (common::serve_text("one").await?, common::serve_text("two").await?);
    let (says, lines) = mpsc::unbounded_channel();
    let registry = LineRegistry { address: registry(lines).await? };
    says.send(format!("join {one}\nall\n"))?;

    let client = BalanceLayer::round_robin(Reconnect::new(registry)).layer(HttpConnector::new());
    let ask = || async {
        let request = Request::get("/next").body(Empty::<Bytes>::new())?;
        common::text(client.clone().oneshot(request).await?).await
    };

    println!("one is there:  {}", ask().await?);
    says.send(format!("join {two}\n"))?;
    while ask().await? != "two" {}
    println!("two has joined");
    says.send(format!("leave {one}\n"))?;
    while [ask().await?, ask().await?].contains(&"one".into()) {}
    println!("one has left:  {}", ask().await?);
    assert_eq!(ask().await?, "two");
    Ok(())
}

/// A registry for this example: it sends `lines` to every client.
async fn registry(
    mut lines: mpsc::UnboundedReceiver<String>,
) -> Result<SocketAddr, common::BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await?;
        while let Some(text) = lines.recv().await {
            socket.write_all(text.as_bytes()).await?;
        }
        Ok::<_, std::io::Error>(())
    });
    Ok(address)
}
