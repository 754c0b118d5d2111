//! Watches the wire: which attempts arrive at the addresses of endpoints, and when.
//!
//! A raw socket is given a copy of every TCP packet that is delivered on this machine, those to closed
//! ports and to stopped processes too. The time is that at which the watcher reads the packet, which on a
//! busy machine is up to some milliseconds late, for all contestants alike.

mod filter;
mod flow;

use std::{
    collections::HashMap,
    io::{self, Read},
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use self::flow::{Flow, Packet};
use evenkeel_rig::clock::Origin;

use crate::{
    BoxError,
    scene::{ENDPOINTS, FILLER_HOST},
};

/// What requests are sent to; the other port is for health checks.
const REQUEST_PORT: u16 = 8_000;

/// As much as packets of a busy second take.
const BUFFER_BYTES: usize = 16 << 20;

/// Longer packets are cut off: only their beginning matters.
const PACKET_BYTES: usize = 4_096;

/// A request, or a connection that did not carry one soon, on its way to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) endpoint: usize,
    /// Since the beginning of the trial.
    pub(crate) at: Duration,
}

/// Watches all lanes of a run.
#[derive(Debug)]
pub(crate) struct Wire {
    base: u8,
    lanes: Mutex<HashMap<u8, Lane>>,
}

#[derive(Debug)]
struct Lane {
    origin: Origin,
    /// By source address and port, and endpoint.
    flows: HashMap<(Ipv4Addr, u16, usize), Flow>,
    attempts: Vec<Attempt>,
}

impl Wire {
    /// Starts to watch the addresses 127.base.0.0/16.
    ///
    /// # Errors
    /// If raw sockets are not allowed.
    pub(crate) fn watch(base: u8) -> Result<Arc<Self>, BoxError> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)).map_err(|error| {
            format!(
                "cannot watch the wire: {error}. Attempts are counted with a raw socket, on Linux, as \
                 root or in a network of one's own: unshare -rn sh -c 'ip link set lo up && league ...'"
            )
        })?;
        socket.attach_filter(&filter::requests(base, REQUEST_PORT, PACKET_BYTES as u32))?;
        // As much as is allowed.
        _ = socket.set_recv_buffer_size(BUFFER_BYTES);
        let wire = Arc::new(Self { base, lanes: Mutex::default() });
        let watcher = wire.clone();
        thread::Builder::new().name("wire".to_owned()).spawn(move || watcher.read(&socket))?;
        Ok(wire)
    }

    /// From now on what arrives in this lane belongs to a trial that began at `origin`.
    pub(crate) fn begin(&self, lane: u8, origin: Origin) {
        let fresh = Lane { origin, flows: HashMap::new(), attempts: Vec::new() };
        self.lanes().insert(lane, fresh);
    }

    /// All attempts of the lane since it began, in order.
    pub(crate) fn end(&self, lane: u8) -> Vec<Attempt> {
        let Some(Lane { flows, mut attempts, .. }) = self.lanes().remove(&lane) else {
            return Vec::new();
        };
        let knocks = flows.iter().filter_map(|(&(_, _, endpoint), flow)| {
            flow.knocked_in_vain().map(|at| Attempt { endpoint, at })
        });
        attempts.extend(knocks);
        attempts.sort_by_key(|attempt| attempt.at);
        attempts
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<u8, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, mut socket: &Socket) {
        let mut buffer = [0; PACKET_BYTES];
        loop {
            match socket.read(&mut buffer) {
                Ok(length) => self.see(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return eprintln!("the wire is no longer watched: {error}"),
            }
        }
    }

    fn see(&self, bytes: &[u8]) {
        let Some(packet) = Packet::parse(bytes) else { return };
        let [127, base, number, host @ 1..=255] = packet.destination.octets() else { return };
        let is_filler = packet.source.octets() == [127, base, number, FILLER_HOST];
        let endpoint = usize::from(host) - 1;
        if base != self.base
            || packet.destination_port != REQUEST_PORT
            || ENDPOINTS <= endpoint
            || is_filler
        {
            return;
        }
        let mut lanes = self.lanes();
        let Some(lane) = lanes.get_mut(&number) else { return };
        let at = lane.origin.elapsed();
        let key = (packet.source, packet.source_port, endpoint);
        let flow = lane.flows.entry(key).or_default();
        if let Some(at) = flow.begin_if_syn(&packet, at) {
            lane.attempts.push(Attempt { endpoint, at });
        }
        for _ in 0..flow.heads(&packet, at) {
            lane.attempts.push(Attempt { endpoint, at });
        }
    }
}
