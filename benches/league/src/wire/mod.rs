//! Watches the wire: which attempts arrive at the endpoints, and when.
//!
//! A raw socket receives a copy of every TCP packet that is delivered on this machine, including
//! packets to closed ports and to stopped processes. The time is when the watcher reads the packet.
//! On a busy machine that is up to some milliseconds late, for all contestants alike.

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

/// The port for requests. The other port is for health checks.
const REQUEST_PORT: u16 = 8_000;

/// The size of the receive buffer: the packets of a busy second.
const BUFFER_BYTES: usize = 16 << 20;

/// Longer packets are cut off, because only their beginning matters.
const PACKET_BYTES: usize = 4_096;

/// An attempt: a request, or a connection to an endpoint that carried none soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) endpoint: usize,
    /// The time since the beginning of the trial.
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
    /// The flows by source address, source port and endpoint.
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
        // The kernel may grant a smaller buffer.
        _ = socket.set_recv_buffer_size(BUFFER_BYTES);
        let wire = Arc::new(Self { base, lanes: Mutex::default() });
        let watcher = wire.clone();
        thread::Builder::new().name("wire".to_owned()).spawn(move || watcher.read(&socket))?;
        Ok(wire)
    }

    /// Assigns packets that arrive in this lane from now on to a trial that began at `origin`.
    pub(crate) fn begin(&self, lane: u8, origin: Origin) {
        let fresh = Lane { origin, flows: HashMap::new(), attempts: Vec::new() };
        self.lanes().insert(lane, fresh);
    }

    /// All attempts in the lane since the trial began, in order.
    pub(crate) fn end(&self, lane: u8) -> Vec<Attempt> {
        let Some(Lane { flows, mut attempts, .. }) = self.lanes().remove(&lane) else {
            return Vec::new();
        };
        let knocks = flows.iter().filter_map(|(&(_, _, endpoint), flow)| {
            flow.begun_without_request().map(|at| Attempt { endpoint, at })
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
                Ok(length) => self.record_packet(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return eprintln!("the wire is no longer watched: {error}"),
            }
        }
    }

    fn record_packet(&self, bytes: &[u8]) {
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
        for _ in 0..flow.count_heads(&packet, at) {
            lane.attempts.push(Attempt { endpoint, at });
        }
    }
}
