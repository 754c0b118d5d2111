//! nginx as a reverse proxy, with its defaults and with a tuned configuration.

use std::path::PathBuf;

use evenkeel_rig::process::{Companion, CompanionId, find};
use futures_util::{FutureExt, future::BoxFuture};

use super::{
    Announce, Contestant, Running,
    proxy::{accepts, client, fill, lines, write_whole},
};
use crate::{
    BoxError,
    fault::Fault,
    options::Programs,
    scene::{ENDPOINTS, Place, Scene},
};

const DEFAULT: &str = include_str!("../../config/nginx.conf");
const TUNED: &str = include_str!("../../config/nginx-tuned.conf");

#[derive(Debug)]
pub(crate) struct Nginx {
    program: PathBuf,
    is_tuned: bool,
}

impl Nginx {
    pub(crate) fn new(programs: &Programs, is_tuned: bool) -> Self {
        Self { program: programs.nginx.clone(), is_tuned }
    }
}

impl Contestant for Nginx {
    fn name(&self) -> &'static str {
        if self.is_tuned { "nginx-tuned" } else { "nginx" }
    }

    fn about(&self) -> &'static str {
        if self.is_tuned {
            "nginx: keep-alive, short timeouts, next upstream on 5xx, least_conn; reloaded"
        } else {
            "nginx: upstream and proxy_pass, else its defaults; reloaded"
        }
    }

    fn unable(&self, fault: Fault) -> Option<&'static str> {
        (fault == Fault::SilentHttp2).then_some("speaks no HTTP/2 to endpoints")
    }

    fn missing(&self) -> Option<String> {
        let is_missing = find(&self.program).is_none();
        is_missing.then(|| "not installed: apt-get install nginx-light, or --nginx PATH".to_owned())
    }

    fn start<'a>(&'a self, scene: &'a Scene) -> BoxFuture<'a, Result<Running, BoxError>> {
        async move {
            let program = find(&self.program).ok_or("nginx is not installed")?;
            let (template, parameters) =
                if self.is_tuned { (TUNED, " max_fails=1 fail_timeout=2s") } else { (DEFAULT, "") };
            let file = scene.folder.join("nginx.conf");
            let values = vec![
                ("folder", scene.folder.display().to_string()),
                ("listen", scene.lane.proxy().to_string()),
            ];
            let places = scene.places();
            let written =
                Written { file, template, parameters, values, places, is_in: [true; ENDPOINTS] };
            written.write()?;
            let log = scene.folder.join("start.log");
            let (folder, file) = (scene.folder.as_os_str(), written.file.as_os_str());
            let arguments =
                ["-p".as_ref(), folder, "-e".as_ref(), log.as_os_str(), "-c".as_ref(), file];
            let proxy = Companion::start(&program, arguments)?;
            accepts(scene.lane.proxy(), self.name()).await?;
            let announce = Box::new(Reloaded { written, proxy: proxy.id()? });
            Ok(Running { client: client(scene), announce, proxy: Some(proxy) })
        }
        .boxed()
    }
}

/// Replaces the configuration, the only way to change nginx's endpoints.
struct Written {
    file: PathBuf,
    template: &'static str,
    /// For each server.
    parameters: &'static str,
    values: Vec<(&'static str, String)>,
    places: [Place; ENDPOINTS],
    is_in: [bool; ENDPOINTS],
}

impl Written {
    fn write(&self) -> std::io::Result<()> {
        let places = self.places.iter().zip(self.is_in).filter(|(_, is_in)| *is_in);
        let servers = lines(places, |(place, _)| {
            format!("        server {}{};", place.requests, self.parameters)
        });
        let mut values = self.values.clone();
        values.push(("servers", servers));
        write_whole(&self.file, &fill(self.template, &values))
    }
}

struct Reloaded {
    written: Written,
    proxy: CompanionId,
}

impl Reloaded {
    fn set(&mut self, endpoint: usize, is_in: bool) -> Result<(), BoxError> {
        self.written.is_in[endpoint] = is_in;
        self.written.write()?;
        self.proxy.reload()
    }
}

impl Announce for Reloaded {
    fn remove(&mut self, endpoint: usize) -> Result<(), BoxError> {
        self.set(endpoint, false)
    }

    fn insert(&mut self, endpoint: usize) -> Result<(), BoxError> {
        self.set(endpoint, true)
    }
}
