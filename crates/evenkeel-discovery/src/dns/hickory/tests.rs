//! Search domains, the hosts file, and servers that do not know EDNS.

use super::*;
use crate::dns::resolver::is_refusal;

#[path = "../../../tests/suite/dns/simulated.rs"]
#[allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic")]
mod simulated;

use self::simulated::{Reply, Server};

fn config(search: &[&str], servers: &[SocketAddr]) -> ResolverConfig {
    let name = |name: &&str| Name::from_ascii(name).unwrap();
    let servers = servers.iter().map(|server| {
        let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
        connections.iter_mut().for_each(|connection| connection.port = server.port());
        NameServerConfig::new(server.ip(), true, connections)
    });
    let domain = Some(name(&"host.example"));
    ResolverConfig::from_parts(domain, search.iter().map(name).collect(), servers.collect())
}

fn names(search: &[&str], ndots: usize, name: &str) -> Vec<String> {
    let names = Search::new(&config(search, &[]), ndots).names(name);
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn names_are_searched_for_as_resolv_conf_says() {
    let search = ["shop.svc.test", "svc.test"];
    let expected = ["db.shop.svc.test.", "db.svc.test.", "db."];
    assert_eq!(names(&search, 1, "db"), expected);
    assert_eq!(names(&search, 2, "db.x"), ["db.x.shop.svc.test.", "db.x.svc.test.", "db.x."]);
    assert_eq!(names(&search, 1, "db.x"), ["db.x.", "db.x.shop.svc.test.", "db.x.svc.test."]);
    assert_eq!(names(&search, 5, "db.x."), ["db.x."]);
    assert_eq!(names(&[], 1, "db"), ["db.host.example.", "db."], "its own domain stands in");
    assert_eq!(names(&["a", "a"], 1, "db"), ["db.a.", "db."]);
    assert_eq!(names(&["a"], 1, "my_db.x_y"), ["my_db.x_y.", "my_db.x_y.a."]);
}

/// A session with a hosts file and no server.
fn with_hosts(lines: &str) -> HickorySession {
    let mut hosts = Hosts::default();
    hosts.read_hosts_conf(lines.as_bytes()).unwrap();
    let config = config(&["shop.test"], &[]);
    HickorySession::new(&config, ResolverOpts::default(), hosts, Duration::from_secs(1)).unwrap()
}

#[tokio::test]
async fn a_name_in_the_hosts_file_means_what_stands_there_and_nothing_else() {
    let session = with_hosts("10.0.0.7 db\n");
    let names = session.names("db");

    assert_eq!(names, ["db.".into()]);
    let v4 = session.addresses(&names[0], Family::V4).await.unwrap();
    assert_eq!(v4.records, ["10.0.0.7".parse::<IpAddr>().unwrap()]);
    assert!(session.addresses(&names[0], Family::V6).await.unwrap().records.is_empty());
    assert_eq!(session.names("other").len(), 2);
}

#[tokio::test]
async fn a_refusal_of_a_server_is_told_apart_from_a_denial_and_from_silence() {
    let server = Server::start().await;
    server.reply("my_db.a.test.", Reply::ServFail);
    server.reply("my_db.", Reply::Silence);
    let config = config(&["a.test", "b.test"], &[server.address]);
    let (options, hosts) = (ResolverOpts::default(), Hosts::default());
    let session = HickorySession::new(&config, options, hosts, Duration::from_secs(2)).unwrap();

    let names = session.names("my_db");
    assert_eq!(names, ["my_db.a.test.".into(), "my_db.b.test.".into(), "my_db.".into()]);
    assert!(is_refusal(&session.addresses(&names[0], Family::V4).await.unwrap_err()));
    assert!(session.addresses(&names[1], Family::V4).await.unwrap().records.is_empty());
    assert!(!is_refusal(&session.addresses(&names[2], Family::V4).await.unwrap_err()));
}
