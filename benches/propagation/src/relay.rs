//! A relay between callers and a member of the registry, which counts what goes through.

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

/// Of more the time is not kept: an answer of Consul with 10,000 endpoints comes in a hundred parts.
const NEWS_MAX: usize = 1 << 20;

/// Who moves from one member to another has two connections for so long at most.
const PASSING: Duration = Duration::from_millis(500);

/// What went through all relays of a registry.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    bytes: AtomicU64,
    /// When something came from the registry, up to [`NEWS_MAX`] times.
    news: Mutex<Vec<Moment>>,
    open: AtomicUsize,
    open_max: AtomicUsize,
}

impl Counts {
    /// Bytes from the registry.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// When the last came that came by then.
    pub(crate) fn last_before(&self, moment: Moment) -> Option<Moment> {
        let news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        news.iter().rev().find(|at| **at <= moment).copied()
    }

    fn came(&self, length: usize) {
        self.bytes.fetch_add(length as u64, Relaxed);
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        if news.len() < NEWS_MAX {
            news.push(Moment::now());
        }
    }

    /// The most connections that there were at a time, those left out that went as another came.
    pub(crate) fn connections(&self) -> usize {
        self.open_max.load(Relaxed)
    }

    fn opened(&self) {
        let open = self.open.fetch_add(1, Relaxed) + 1;
        self.open_max.fetch_max(open, Relaxed);
    }
}

/// A way to `target`, which is there as long as the runtime is.
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
                // However it ends, both sides are closed.
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
            counts.came(length);
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
    async fn what_comes_from_the_registry_is_counted_and_connections_with_it() {
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
