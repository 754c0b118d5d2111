//! DNS: BIND with a zone that is updated while it is served. The rig writes the records, as a
//! platform does.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{io::AsyncWriteExt, process::Command};

use super::{Registry, Running, SERVICE};
use crate::{
    BoxError,
    backend::Register,
    event::Event,
    servers::{Server, find, free_ports, local, until},
};

/// The records' time to live.
pub(crate) const TTL: Duration = Duration::from_secs(5);

const ZONE: &str = "\
$TTL 5
@ IN SOA ns.example.test. root.example.test. 1 60 60 600 1
@ IN NS ns
ns IN A 127.0.0.1
";

#[derive(Debug)]
pub(super) struct Dns;

impl Registry for Dns {
    fn name(&self) -> &'static str {
        "dns"
    }

    fn about(&self) -> &'static str {
        "BIND, A records with a TTL of 5 s; discovery by asking again in time, or when connecting fails"
    }

    fn missing(&self) -> Option<String> {
        let is_there = ["named", "nsupdate"].iter().all(|name| find("bind", name).is_some());
        let advice = || "not measured: `apt-get install bind9 bind9-dnsutils` gets it".to_owned();
        (!is_there).then(advice)
    }

    fn supports(&self, event: Event) -> bool {
        matches!(event, Event::Join | Event::Leave | Event::Crash)
    }

    fn max_delay(&self) -> Duration {
        TTL + Duration::from_millis(100)
    }

    fn propagation(&self) -> Duration {
        TTL + Duration::from_secs(1)
    }

    fn start<'a>(&'a self, folder: &'a Path) -> BoxFuture<'a, Result<Box<dyn Running>, BoxError>> {
        start(folder).map(|bind| Ok(Box::new(bind?) as Box<dyn Running>)).boxed()
    }
}

async fn start(folder: &Path) -> Result<Bind, BoxError> {
    let program = find("bind", "named").ok_or("named is missing")?;
    let nsupdate = find("bind", "nsupdate").ok_or("nsupdate is missing")?;
    let [port] = free_ports()?;
    std::fs::write(folder.join("zone"), ZONE)?;
    let directory = folder.display();
    let settings = format!(
        "options {{ directory \"{directory}\"; listen-on port {port} {{ 127.0.0.1; }}; \
         listen-on-v6 {{ none; }}; pid-file \"{directory}/named.pid\"; \
         session-keyfile \"{directory}/session.key\"; recursion no; allow-query {{ any; }}; \
         dnssec-validation no; }};\n\
         controls {{ }};\n\
         zone \"example.test\" {{ type master; file \"{directory}/zone\"; \
         allow-update {{ 127.0.0.1; }}; }};\n"
    );
    let path = folder.join("named.conf");
    std::fs::write(&path, settings)?;
    let arguments = ["-g", "-n", "1", "-c"].map(Into::into).into_iter();
    let arguments = arguments.chain([path.into_os_string()]);
    let server = Server::start(&program, arguments, folder.join("named.log"))?;
    let bind = Bind { _server: server, address: local(port), nsupdate };
    bind.until_ready().await?;
    Ok(bind)
}

struct Bind {
    _server: Server,
    address: SocketAddr,
    nsupdate: PathBuf,
}

impl Bind {
    async fn update(&self, lines: &str) -> Result<(), BoxError> {
        let server = format!("server {} {}", self.address.ip(), self.address.port());
        let mut nsupdate =
            Command::new(&self.nsupdate).stdin(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut input = nsupdate.stdin.take().expect("it is piped");
        let script = format!("{server}\nzone example.test\n{lines}\nsend\n");
        input.write_all(script.as_bytes()).await?;
        drop(input);
        let status = nsupdate.wait().await?;
        if status.success() { Ok(()) } else { Err("the zone could not be changed".into()) }
    }
}

impl Running for Bind {
    fn members(&self) -> Vec<SocketAddr> {
        vec![]
    }

    fn target(&self, _: &[SocketAddr], port: u16) -> Result<String, BoxError> {
        Ok(format!("dns://{}/{SERVICE}.example.test:{port}", self.address))
    }

    fn register(&self) -> Option<Register> {
        None
    }

    fn insert<'a>(&'a mut self, many: &'a [SocketAddr]) -> BoxFuture<'a, Result<(), BoxError>> {
        let add =
            |one: &SocketAddr| format!("update add {SERVICE}.example.test 5 A {}\n", one.ip());
        let lines: String = many.iter().map(add).collect();
        async move { self.update(&lines).await }.boxed()
    }

    fn remove(&mut self, one: SocketAddr) -> BoxFuture<'_, Result<(), BoxError>> {
        let line = format!("update delete {SERVICE}.example.test A {}", one.ip());
        async move { self.update(&line).await }.boxed()
    }

    fn until_ready(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        // An update that changes nothing.
        let line = "update delete nothing.example.test A";
        until("BIND", move || async move { self.update(line).await.is_ok() }).boxed()
    }
}
