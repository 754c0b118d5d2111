//! BIND, started for a test on a free port, with a zone that can be changed.

use std::{
    fs,
    io::Write,
    net::{SocketAddr, TcpListener, UdpSocket},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

const ZONE: &str = "\
$TTL 0
@ IN SOA ns.example.test. root.example.test. 1 60 60 600 0
@ IN NS ns
ns IN A 127.0.0.1
db IN A 10.0.0.1
db IN A 10.0.0.2
db IN AAAA 2001:db8::1
alias IN CNAME db
a IN A 10.0.1.1
b IN A 10.0.1.2
_grpc._tcp IN SRV 0 10 8080 a
_grpc._tcp IN SRV 1 5 8081 b
";

pub(crate) struct Bind {
    pub(crate) address: SocketAddr,
    server: Child,
    _folder: TempDir,
}

impl Bind {
    /// Starts it; none, with a loud message, if it is not installed.
    pub(crate) fn start() -> Option<Self> {
        if !is_installed("named", "-v") || !is_installed("nsupdate", "-V") {
            let advice = "named and nsupdate are not installed (packages bind9, bind9-dnsutils)";
            // Not by a macro, whose output the test harness hides when the test passes.
            let _ = writeln!(std::io::stderr(), "\n!!! DNS IS NOT TESTED AGAINST BIND: {advice}\n");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        // The most that BIND accepts by default, and more than an answer over UDP holds.
        let many = (1..=100).map(|n| format!("many IN A 10.1.0.{n}\n"));
        fs::write(folder.path().join("zone"), ZONE.to_owned() + &many.collect::<String>()).unwrap();
        let directory = folder.path().display();
        let configuration = format!(
            "options {{ directory \"{directory}\"; listen-on port {} {{ 127.0.0.1; }}; \
             listen-on-v6 {{ none; }}; pid-file \"{directory}/named.pid\"; \
             session-keyfile \"{directory}/session.key\"; recursion no; allow-query {{ any; }}; \
             dnssec-validation no; rrset-order {{ order cyclic; }}; }};\n\
             controls {{ }};\n\
             zone \"example.test\" {{ type master; file \"{directory}/zone\"; \
             allow-update {{ 127.0.0.1; }}; }};\n",
            address.port()
        );
        let path = folder.path().join("named.conf");
        fs::write(&path, configuration).unwrap();
        let server = Command::new("named")
            .args(["-g", "-n", "1", "-c"])
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Some(Self { address, server, _folder: folder })
    }

    /// Changes the zone while it is served.
    pub(crate) fn update(&self, commands: &str) {
        let script = format!(
            "server {} {}\nzone example.test\n{commands}\nsend\n",
            self.address.ip(),
            self.address.port()
        );
        let mut nsupdate = Command::new("nsupdate").stdin(Stdio::piped()).spawn().unwrap();
        nsupdate.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(nsupdate.wait().unwrap().success());
    }

    pub(crate) fn stop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        self.stop();
    }
}

fn is_installed(program: &str, version: &str) -> bool {
    let mut command = Command::new(program);
    command.arg(version).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok()
}

/// A port that is free for UDP and TCP.
fn free_address() -> SocketAddr {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
