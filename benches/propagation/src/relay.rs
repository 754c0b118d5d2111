//! A relay between callers and a member of the registry, which counts the traffic.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{BoxError, moment::Moment};

/// Times are kept for this many pieces: an answer of Consul with 10,000 endpoints comes in a
/// hundred pieces.
const MAX_NEWS: usize = 1 << 20;

/// A client that moves from one member to another may have two connections for this time.
const PASSING: Duration = Duration::from_millis(500);

/// The traffic of all relays of a registry.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    bytes: AtomicU64,
    /// When data came from the registry, up to [`MAX_NEWS`] times.
    news: Mutex<Vec<Moment>>,
    open: AtomicUsize,
    max_open: AtomicUsize,
}

impl Counts {
    /// The number of bytes from the registry.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// When the last data came before this time.
    pub(crate) fn last_before(&self, moment: Moment) -> Option<Moment> {
        let news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        news.iter().rev().find(|at| **at <= moment).copied()
    }

    fn count_bytes(&self, length: usize) {
        self.bytes.fetch_add(length as u64, Relaxed);
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        if news.len() < MAX_NEWS {
            news.push(Moment::now());
        }
    }

    /// The most connections at a time. A connection that closes while another opens is not counted
    /// twice.
    pub(crate) fn connections(&self) -> usize {
        self.max_open.load(Relaxed)
    }

    fn opened(&self) {
        let open = self.open.fetch_add(1, Relaxed) + 1;
        self.max_open.fetch_max(open, Relaxed);
    }
}

/// A relay to `target`, which lasts as long as the runtime.
pub(crate) async fn relay(
    target: SocketAddr,
    counts: &Arc<Counts>,
) -> Result<SocketAddr, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, counts) = (listener.local_addr()?, counts.clone());
    tokio::spawn(async move {
        while let Ok((inside, _)) = listener.accept().await {
            let counts = counts.clone();
            tokio::spawn(async move {
                let mut joined = pin!(join(inside, target, &counts));
                // Both sides are closed in any case.
                if timeout(PASSING, &mut joined).await.is_err() {
                    counts.opened();
                    _ = joined.await;
                    counts.open.fetch_sub(1, Relaxed);
                }
            });
        }
    });
    Ok(address)
}

async fn join(inside: TcpStream, target: SocketAddr, counts: &Counts) -> std::io::Result<()> {
    let outside = TcpStream::connect(target).await?;
    inside.set_nodelay(true)?;
    outside.set_nodelay(true)?;
    let (mut inside_read, mut inside_write) = inside.into_split();
    let (mut outside_read, mut outside_write) = outside.into_split();
    let inwards = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = outside_read.read(&mut buffer).await?;
            if length == 0 {
                return Ok(());
            }
            counts.count_bytes(length);
            inside_write.write_all(&buffer[..length]).await?;
        }
    };
    let outwards = async { tokio::io::copy(&mut inside_read, &mut outside_write).await.map(drop) };
    tokio::select! {
        end = inwards => end,
        end = outwards => end,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_from_the_registry_and_connections_to_it_are_counted() {
        let registry = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let counts = Arc::default();
        let address = relay(registry.local_addr().unwrap(), &counts).await.unwrap();

        let mut client = TcpStream::connect(address).await.unwrap();
        let (mut server, _) = registry.accept().await.unwrap();
        server.write_all(&[7; 1_000]).await.unwrap();
        client.write_all(&[7; 10]).await.unwrap();
        client.read_exact(&mut [0; 1_000]).await.unwrap();

        assert_eq!((counts.bytes(), counts.connections()), (1_000, 0), "it may be gone at once");
        tokio::time::pause();
        tokio::time::sleep(2 * PASSING).await;
        assert_eq!(counts.connections(), 1);
        tokio::time::resume();
        drop(server);
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0, "an end is passed on");
    }
}
