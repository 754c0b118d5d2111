//! A proxy to a server through which bytes come late, one by one, in part, garbled or not at all.
#![allow(dead_code, reason = "no test needs all of it")]

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// What happens to the server's bytes on their way to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Motion {
    Through,
    /// Each byte comes singly.
    Single,
    /// Each piece comes this much later.
    Late(Duration),
    /// Nothing comes until the motion is changed. Held bytes come then.
    Held,
    /// This many bytes come, and then the connection is cut.
    CutAfter(usize),
    /// The highest bit of each seventh byte is flipped.
    Garbled,
    /// Connections are accepted, and closed at once.
    Shut,
}

#[derive(Clone, Debug)]
struct Way {
    target: String,
    motion: Motion,
    /// Connections of an earlier round are cut.
    round: u32,
}

pub(crate) struct Proxy {
    pub(crate) url: String,
    way: watch::Sender<Way>,
    tried: Arc<Mutex<Vec<Instant>>>,
    carried: Arc<AtomicUsize>,
}

impl Proxy {
    /// A proxy to `url`, which is a scheme and an address.
    pub(crate) async fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = format!("http://{}", listener.local_addr().unwrap());
        let target = bare(url);
        let (way, walked) = watch::channel(Way { target, motion: Motion::Through, round: 0 });
        let tried = Arc::<Mutex<Vec<Instant>>>::default();
        let trying = tried.clone();
        let carried = Arc::<AtomicUsize>::default();
        let carrying = carried.clone();
        tokio::spawn(async move {
            while let Ok((inside, _)) = listener.accept().await {
                trying.lock().unwrap().push(Instant::now());
                if walked.borrow().motion != Motion::Shut {
                    tokio::spawn(carry(inside, walked.clone(), carrying.clone()));
                }
            }
        });
        Self { url: own, way, tried, carried }
    }

    pub(crate) fn set(&self, motion: Motion) {
        self.way.send_modify(|way| way.motion = motion);
    }

    /// Cuts the existing connections.
    pub(crate) fn cut(&self) {
        self.way.send_modify(|way| way.round += 1);
    }

    /// Cuts the existing connections, and closes new ones at once.
    pub(crate) fn shut(&self) {
        self.tried.lock().unwrap().clear();
        self.set(Motion::Shut);
        self.cut();
    }

    pub(crate) fn open(&self) {
        self.set(Motion::Through);
    }

    /// Leads to another server, and cuts the existing connections.
    pub(crate) fn lead_to(&self, url: &str) {
        let target = bare(url);
        self.way.send_modify(|way| {
            way.target = target;
            way.round += 1;
        });
    }

    /// How many pieces of answers have been carried.
    pub(crate) fn carried(&self) -> usize {
        self.carried.load(SeqCst)
    }

    /// When connections were attempted, since it was last shut.
    pub(crate) fn tried(&self) -> Vec<Instant> {
        self.tried.lock().unwrap().clone()
    }
}

fn bare(url: &str) -> String {
    url.trim_start_matches("http://").trim_start_matches("https://").to_owned()
}

/// Carries one connection, until it ends or is cut.
async fn carry(inside: TcpStream, mut way: watch::Receiver<Way>, pieces: Arc<AtomicUsize>) {
    let (target, round) = {
        let way = way.borrow_and_update();
        (way.target.clone(), way.round)
    };
    // If the server does not accept the connection, it is closed, as the server would.
    let Ok(outside) = TcpStream::connect(target).await else { return };
    let _ = inside.set_nodelay(true);
    let (mut from_client, to_client) = inside.into_split();
    let (from_server, mut to_server) = outside.into_split();
    let mut cut = way.clone();
    tokio::select! {
        _ = back(from_server, to_client, way, &pieces) => {}
        () = async {
            let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
            // The client may have closed its side alone.
            let _ = to_server.shutdown().await;
            std::future::pending::<()>().await;
        } => {}
        _ = cut.wait_for(|way| way.round != round) => {}
    }
}

/// Carries bytes from the server to the client, as the current motion says.
async fn back(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut way: watch::Receiver<Way>,
    pieces: &AtomicUsize,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    let mut carried = 0;
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        let piece = &mut buffer[..length];
        pieces.fetch_add(1, SeqCst);
        let motion = way.wait_for(|way| way.motion != Motion::Held).await.map(|way| way.motion);
        match motion.unwrap_or(Motion::Through) {
            Motion::Single => {
                for byte in piece.iter() {
                    to.write_u8(*byte).await?;
                    // So that the reader takes it before the next comes.
                    tokio::task::yield_now().await;
                }
            }
            Motion::Late(delay) => {
                tokio::time::sleep(delay).await;
                to.write_all(piece).await?;
            }
            Motion::CutAfter(bytes) => {
                let rest = bytes.saturating_sub(carried).min(length);
                to.write_all(&piece[..rest]).await?;
                carried += rest;
                if bytes <= carried {
                    return Ok(());
                }
            }
            Motion::Garbled => {
                piece.iter_mut().step_by(7).for_each(|byte| *byte ^= 0x80);
                to.write_all(piece).await?;
            }
            Motion::Through | Motion::Held | Motion::Shut => to.write_all(piece).await?,
        }
    }
}
