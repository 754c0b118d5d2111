//! The surroundings of a trial: addresses, protocol, a folder for configurations.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

/// How many endpoints there are.
pub(crate) const ENDPOINTS: usize = 5;

/// The port for requests.
const PORT: u16 = 8_000;

/// The port for health checks, which are therefore not counted as requests.
const HEALTH_PORT: u16 = 8_001;

/// Hosts of a lane that are not endpoints.
const PROXY_HOST: u8 = 100;
pub(crate) const FILLER_HOST: u8 = 200;

/// The protocol of the endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// A part of 127.0.0.0/8, used by one trial at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lane {
    /// The second byte of its addresses, the same for all lanes of a run.
    pub(crate) base: u8,
    /// The third byte.
    pub(crate) number: u8,
}

impl Lane {
    fn address(self, host: u8, port: u16) -> SocketAddr {
        (Ipv4Addr::new(127, self.base, self.number, host), port).into()
    }

    pub(crate) fn endpoint(self, index: usize) -> Place {
        let host = u8::try_from(index + 1).expect("a handful of endpoints");
        Place { requests: self.address(host, PORT), health: self.address(host, HEALTH_PORT) }
    }

    pub(crate) fn proxy(self) -> SocketAddr {
        self.address(PROXY_HOST, PORT)
    }

    /// The source address of the connections that fill accept queues. They are not counted as
    /// attempts.
    pub(crate) fn filler(self) -> SocketAddr {
        self.address(FILLER_HOST, 0)
    }
}

/// The addresses of one endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) requests: SocketAddr,
    pub(crate) health: SocketAddr,
}

/// What a contestant knows of its trial.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) lane: Lane,
    pub(crate) protocol: Protocol,
    /// A folder for configurations, deleted after the trial.
    pub(crate) folder: PathBuf,
    pub(crate) seed: u64,
}

impl Scene {
    pub(crate) fn places(&self) -> [Place; ENDPOINTS] {
        std::array::from_fn(|index| self.lane.endpoint(index))
    }

    pub(crate) fn addresses(&self) -> [SocketAddr; ENDPOINTS] {
        self.places().map(|place| place.requests)
    }
}
