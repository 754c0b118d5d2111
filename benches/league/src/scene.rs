//! Where a trial takes place: addresses, protocol, a folder for configurations.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

/// How many endpoints there are.
pub(crate) const ENDPOINTS: usize = 5;

/// Requests go here.
const PORT: u16 = 8_000;

/// Health checks go here, so that they are not taken for requests.
const HEALTH_PORT: u16 = 8_001;

/// Hosts of a lane that are no endpoints.
const PROXY_HOST: u8 = 100;
pub(crate) const FILLER_HOST: u8 = 200;

/// What the endpoints are spoken to in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// A part of 127.0.0.0/8 in which one trial at a time takes place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lane {
    /// The second byte of its addresses, the same for all lanes of a run.
    pub(crate) base: u8,
    /// The third.
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

    /// From where accept queues are filled: what comes from here is no attempt.
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

/// What a contestant is told of its trial.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) lane: Lane,
    pub(crate) protocol: Protocol,
    /// For configurations, gone after the trial.
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
