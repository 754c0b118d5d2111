//! The surroundings of a trial: a registry behind relays, and backends that register themselves.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::future::try_join_all;

use crate::{
    BoxError,
    backend::{self, Settings, Told},
    lines::Lines,
    moment::Moment,
    options::Options,
    registries::{Registry, Running, SERVICE},
    relay::{Counts, relay},
};

/// How many backends there are, including the target.
pub(crate) const BACKENDS: usize = 4;

/// The backend that joins, leaves or dies.
pub(crate) const TARGET: usize = BACKENDS - 1;

/// How long a backend may take to start, to register, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A part of 127.0.0.0/8, used by one trial at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lane {
    /// The second byte of its addresses, the same for all lanes of a run.
    pub(crate) base: u8,
    /// The third byte.
    pub(crate) number: u8,
}

/// A registry and backends for one trial.
pub(crate) struct Scene {
    pub(crate) registry: Box<dyn Running>,
    /// The addresses at which callers ask the registry's members: the relays.
    pub(crate) members: Vec<SocketAddr>,
    pub(crate) counts: Arc<Counts>,
    /// The address of the discovery.
    pub(crate) target: String,
    pub(crate) folder: PathBuf,
    /// Whether there will be many endpoints, which the rig registers.
    pub(crate) is_large: bool,
    /// How many endpoints the rig has registered.
    pub(crate) many: usize,
    backends: Vec<Backend>,
}

struct Backend {
    address: SocketAddr,
    process: Lines<Told>,
    has_entered: bool,
}

impl Scene {
    /// Starts a registry, relays and backends. No backend is registered yet.
    pub(crate) async fn set(
        registry: &dyn Registry,
        tags: &[String],
        lane: Lane,
        options: &Options,
        folder: &Path,
    ) -> Result<Self, BoxError> {
        let running = registry.start(folder).await?;
        let settings = |address| Settings {
            address,
            service: SERVICE.to_owned(),
            register: running.register(),
            tags: tags.to_vec(),
            ttl: options.ttl(),
            propagation: registry.propagation(),
        };
        // All backends have one port, as a registry without ports needs it.
        let host = |index: usize| Ipv4Addr::new(127, lane.base, lane.number, index as u8 + 1);
        let mut backends = vec![Backend::start(&settings((host(0), 0).into())).await?];
        let port = backends[0].address.port();
        for index in 1..BACKENDS {
            backends.push(Backend::start(&settings((host(index), port).into())).await?);
        }
        Self::with(running, backends, port, folder, false).await
    }

    /// Starts a registry and one backend that answers at every address of 127.0.0.0/8.
    pub(crate) async fn set_large(
        registry: &dyn Registry,
        folder: &Path,
        options: &Options,
    ) -> Result<Self, BoxError> {
        let running = registry.start(folder).await?;
        let settings = Settings {
            address: (Ipv4Addr::UNSPECIFIED, 0).into(),
            service: SERVICE.to_owned(),
            register: None,
            tags: vec![],
            ttl: options.ttl(),
            propagation: registry.propagation(),
        };
        let backend = Backend::start(&settings).await?;
        let port = backend.address.port();
        Self::with(running, vec![backend], port, folder, true).await
    }

    async fn with(
        registry: Box<dyn Running>,
        backends: Vec<Backend>,
        port: u16,
        folder: &Path,
        is_large: bool,
    ) -> Result<Self, BoxError> {
        let counts = Arc::default();
        let relays = registry.members().into_iter().map(|member| relay(member, &counts));
        let members = try_join_all(relays).await?;
        let target = registry.target(&members, port)?;
        let folder = folder.to_owned();
        Ok(Self { registry, members, counts, target, folder, is_large, many: 0, backends })
    }

    /// How many endpoints are registered.
    pub(crate) fn entered(&self) -> usize {
        self.many + self.backends.iter().filter(|backend| backend.has_entered).count()
    }

    pub(crate) fn address(&self, index: usize) -> SocketAddr {
        self.backends[index].address
    }

    /// Registers a backend, and returns when that began.
    pub(crate) async fn enter(&mut self, index: usize) -> Result<Moment, BoxError> {
        let (is_own, backend) = (self.registry.register().is_some(), &mut self.backends[index]);
        backend.has_entered = true;
        if !is_own {
            let began = Moment::now();
            self.registry.insert(&[backend.address]).await?;
            return Ok(began);
        }
        backend.tell("enter").await
    }

    /// Waits until the registry has confirmed a backend.
    pub(crate) async fn until_entered(&mut self, index: usize) -> Result<Moment, BoxError> {
        if self.registry.register().is_none() {
            return Ok(Moment::now());
        }
        let entered = |all: &[Told]| {
            all.iter().rev().find_map(|told| match told {
                Told::Entered(at) => Some(*at),
                _ => None,
            })
        };
        let entered = self.backends[index].process.until(PATIENCE, entered).await;
        Ok(entered.ok_or("a backend cannot enter the registry")?)
    }

    pub(crate) async fn weight(&mut self, index: usize, weight: u32) -> Result<Moment, BoxError> {
        self.backends[index].tell(&format!("weight {weight}")).await
    }

    /// Makes a backend leave gracefully, which takes as long as it serves on.
    pub(crate) async fn leave(&mut self, index: usize) -> Result<Moment, BoxError> {
        let began = self.backends[index].tell("leave").await?;
        if self.registry.register().is_none() {
            self.registry.remove(self.backends[index].address).await?;
        }
        Ok(began)
    }

    /// Kills a backend. If the rig registered it, the rig also removes it.
    pub(crate) async fn kill(&mut self, index: usize) -> Result<Moment, BoxError> {
        let killed = Moment::now();
        self.backends[index].process.kill().await?;
        if self.registry.register().is_none() {
            self.registry.remove(self.backends[index].address).await?;
        }
        Ok(killed)
    }

    /// When a backend's first request arrived. None if that took too long.
    pub(crate) async fn first_request(&mut self, index: usize, after: Duration) -> Option<Moment> {
        let first = |all: &[Told]| {
            all.iter().find_map(|told| match told {
                Told::Requests(span, _) => span.map(|(first, _)| first),
                _ => None,
            })
        };
        self.backends[index].process.until(after, first).await
    }

    /// When the last request arrived at a leaving backend, once it has ended.
    pub(crate) async fn last_request(&mut self, index: usize) -> Option<Moment> {
        let last = |all: &[Told]| {
            let began = all.iter().position(|told| matches!(told, Told::Began(_)));
            all.iter().skip(began.unwrap_or(all.len())).rev().find_map(|told| match told {
                // The first request is reported when it arrives, as the only one so far.
                Told::Requests(span, count) if *count != 1 => span.map(|(_, last)| last),
                _ => None,
            })
        };
        self.backends[index].process.until(PATIENCE, last).await
    }

    /// Registers this many more endpoints, which all lead to the one backend of a large scene.
    pub(crate) async fn insert_many(&mut self, count: usize) -> Result<(), BoxError> {
        let many: Vec<_> = (self.many..self.many + count).map(|n| self.one_of_many(n)).collect();
        self.many += count;
        self.registry.insert(&many).await
    }

    /// The address of one of these endpoints.
    pub(crate) fn one_of_many(&self, number: usize) -> SocketAddr {
        let [.., high, low] = (number as u32 + 1).to_be_bytes();
        (Ipv4Addr::new(127, 1, high, low), self.backends[0].address.port()).into()
    }
}

impl Backend {
    async fn start(settings: &Settings) -> Result<Self, BoxError> {
        let arguments = [backend::ARGUMENT.to_owned(), serde_json::to_string(settings)?];
        let mut process = Lines::start(&arguments)?;
        let ready = |all: &[Told]| match all.first() {
            Some(Told::Ready(address)) => Some(*address),
            _ => None,
        };
        let address = process.until(PATIENCE, ready).await.ok_or("a backend does not start")?;
        Ok(Self { address, process, has_entered: false })
    }

    /// Sends a command, and returns when the backend began to carry it out.
    async fn tell(&mut self, what: &str) -> Result<Moment, BoxError> {
        let before = self.process.so_far(<[Told]>::len);
        self.process.tell(what).await?;
        let began = |all: &[Told]| {
            all.iter().skip(before).find_map(|told| match told {
                Told::Began(at) => Some(*at),
                _ => None,
            })
        };
        let began = self.process.until(PATIENCE, began).await;
        Ok(began.ok_or("a backend does not carry out a command")?)
    }
}
