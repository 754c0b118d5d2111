//! HAProxy, with its defaults and with a tuned configuration.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
};

use evenkeel_rig::process::{Companion, find};
use futures_util::{FutureExt, future::BoxFuture};

use super::{
    Announce, Contestant, Running, Untold,
    proxy::{accepts, client, fill, lines},
};
use crate::{
    BoxError,
    options::Programs,
    scene::{Place, Protocol, Scene},
};

const DEFAULT: &str = include_str!("../../config/haproxy.cfg");
const TUNED: &str = include_str!("../../config/haproxy-tuned.cfg");

#[derive(Debug)]
pub(crate) struct Haproxy {
    program: PathBuf,
    is_tuned: bool,
}

impl Haproxy {
    pub(crate) fn new(programs: &Programs, is_tuned: bool) -> Self {
        Self { program: programs.haproxy.clone(), is_tuned }
    }

    fn server(&self, index: usize, place: Place, protocol: Protocol) -> String {
        let protocol = if protocol == Protocol::Http2 { " proto h2" } else { "" };
        format!("    server e{index} {}{protocol}", place.requests)
            + &if self.is_tuned {
                format!(" check port {} check-proto h1", place.health.port())
            } else {
                String::new()
            }
    }
}

impl Contestant for Haproxy {
    fn name(&self) -> &'static str {
        if self.is_tuned { "haproxy-tuned" } else { "haproxy" }
    }

    fn about(&self) -> &'static str {
        if self.is_tuned {
            "HAProxy: HTTP checks, observe layer7, retry-on, redispatch, leastconn; informed by its socket"
        } else {
            "HAProxy: servers and the timeouts that it asks for, else its defaults"
        }
    }

    fn missing(&self) -> Option<String> {
        let is_missing = find(&self.program).is_none();
        is_missing.then(|| "not installed: apt-get install haproxy, or --haproxy PATH".to_owned())
    }

    fn start<'a>(&'a self, scene: &'a Scene) -> BoxFuture<'a, Result<Running, BoxError>> {
        async move {
            let program = find(&self.program).ok_or("haproxy is not installed")?;
            let socket = scene.folder.join("admin.sock");
            let server = |(index, place)| self.server(index, place, scene.protocol);
            let values = [
                ("socket", socket.display().to_string()),
                ("listen", scene.lane.proxy().to_string()),
                ("servers", lines(scene.places().into_iter().enumerate(), server)),
            ];
            let file = scene.folder.join("haproxy.cfg");
            let template = if self.is_tuned { TUNED } else { DEFAULT };
            std::fs::write(&file, fill(template, &values))?;
            let proxy = Companion::start(
                &program,
                ["-q".as_ref(), "-db".as_ref(), "-f".as_ref(), file.as_os_str()],
            )?;
            accepts(scene.lane.proxy(), self.name()).await?;
            let announce: Box<dyn Announce + Send> =
                if self.is_tuned { Box::new(Socket(socket)) } else { Box::new(Untold) };
            Ok(Running { client: client(scene), announce, proxy: Some(proxy) })
        }
        .boxed()
    }
}

/// Changes endpoints through the runtime socket.
struct Socket(PathBuf);

impl Socket {
    fn set_state(&self, endpoint: usize, state: &str) -> Result<(), BoxError> {
        let mut socket = UnixStream::connect(&self.0)?;
        writeln!(socket, "set server endpoints/e{endpoint} state {state}")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        if answer.trim().is_empty() { Ok(()) } else { Err(answer.into()) }
    }
}

impl Announce for Socket {
    fn remove(&mut self, endpoint: usize) -> Result<(), BoxError> {
        self.set_state(endpoint, "drain")
    }

    fn insert(&mut self, endpoint: usize) -> Result<(), BoxError> {
        self.set_state(endpoint, "ready")
    }
}
