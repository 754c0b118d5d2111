//! Members that end, hang, forget, and refuse.

use evenkeel_core::error::cause;
use evenkeel_discovery::etcd::{Cluster, MemberRefused};
use needs::needs;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::etcd::{
    ms,
    real::{Etcd, Member, VERSIONS},
    servers::until,
    slow_motion::{Motion, Proxy},
    watching::Watching,
    web,
};

#[needs("etcd-3.4", "etcd-3.5", "etcd-3.6")]
#[tokio::test]
async fn a_compacted_position_is_answered_by_a_fresh_list() {
    for version in VERSIONS {
        let etcd = Etcd::start(version).await.unwrap();
        let gate = crate::etcd::servers::Gate::to(&etcd.members[0].url).await;
        etcd.put("1", "10.0.0.1:1");
        etcd.put("2", "10.0.0.1:2");
        let cluster = Cluster::at([&*gate.url]).unwrap();
        let mut watching = Watching::new(&web(cluster));
        watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2"]).await;

        gate.shut();
        watching.until_failure().await;
        etcd.delete("1");
        etcd.put("3", "10.0.0.1:3");
        etcd.control(&["compact", &etcd.revision().to_string()]);
        gate.open();

        watching.until_addresses(&["10.0.0.1:2", "10.0.0.1:3"]).await;
        assert_eq!(watching.least, 2, "no moment with fewer");
    }
}

#[needs("etcd-3.4", "etcd-3.5", "etcd-3.6")]
#[tokio::test]
async fn a_member_that_hangs_costs_no_endpoint_and_is_followed_again() {
    for version in VERSIONS {
        let etcd = Etcd::start(version).await.unwrap();
        etcd.put("1", "10.0.0.1:1");
        let mut watching = Watching::new(&web(etcd.cluster().timeout(ms(500))));
        watching.until_addresses(&["10.0.0.1:1"]).await;

        etcd.members[0].process.pause();
        let failed = watching.until_failure().await.to_string();
        assert!(failed.contains("endpoints kept: 1"), "{failed}");
        watching.during(ms(500)).await;
        etcd.members[0].process.resume();
        etcd.put("2", "10.0.0.1:2");

        watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2"]).await;
        assert_eq!(watching.least, 1);
    }
}

#[needs("etcd-3.4", "etcd-3.5", "etcd-3.6")]
#[tokio::test]
async fn a_quiet_watch_is_no_failure() {
    for version in VERSIONS {
        let etcd = Etcd::start(version).await.unwrap();
        etcd.put("1", "10.0.0.1:1");
        let mut watching = Watching::new(&web(etcd.cluster()).quiet(ms(100)));
        watching.until_addresses(&["10.0.0.1:1"]).await;
        watching.during(ms(1_500)).await;
        assert!(watching.failures.is_empty(), "{:?}", watching.failures);
    }
}

#[needs("etcd-3.4", "etcd-3.5", "etcd-3.6")]
#[tokio::test]
async fn a_member_that_restarts_without_data_empties_nothing() {
    for version in VERSIONS {
        let mut etcd = Etcd::start(version).await.unwrap();
        for id in 1..=3 {
            etcd.put(&id.to_string(), &format!("10.0.0.1:{id}"));
        }
        let mut watching = Watching::new(&web(etcd.cluster()).hold(ms(4_000)));
        watching.until(|set| set.len() == 3).await;

        etcd.members[0].kill();
        etcd.members[0].forget();
        watching.until_failure().await;
        etcd.members[0].start_again();
        etcd.until_ready().await;
        // Two enter themselves again, one does not, one is new.
        for id in [4, 1, 2] {
            etcd.put(&id.to_string(), &format!("10.0.0.1:{id}"));
        }

        watching.until(|set| set.len() == 4).await;
        watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:4"]).await;
        assert_eq!(watching.least, 3, "there was no moment with fewer");
    }
}

/// The new state reaches the revision of the old one between the check of the state and the list.
#[needs("etcd-3.4", "etcd-3.5", "etcd-3.6")]
#[tokio::test]
async fn a_member_that_fills_up_while_it_is_compared_empties_nothing() {
    for version in VERSIONS {
        let mut etcd = Etcd::start(version).await.unwrap();
        let put = |id: u16| format!("put /evenkeel/web/{id} 10.0.0.1:{id}\n");
        etcd.transact(&[1, 2, 3].map(put).concat());
        let way = Proxy::to(&etcd.members[0].url).await;
        let cluster = Cluster::at([&*way.url]).unwrap();
        let mut watching = Watching::new(&web(cluster).hold(ms(10_000)));
        watching.until(|set| set.len() == 3).await;

        etcd.members[0].kill();
        etcd.members[0].forget();
        way.set(Motion::Held);
        etcd.members[0].start_again();
        let member = &etcd.members[0];
        tokio::select! {
            () = until("a refusal", || async { 0 < refused_reads(member).await }) => {}
            () = watching.during(ms(60_000)) => panic!("the member was not asked"),
        }
        etcd.transact(&put(1));
        way.open();
        watching.during(ms(500)).await;
        etcd.transact(&[2, 3, 4].map(put).concat());

        watching.until(|set| set.len() == 4).await;
        assert_eq!(watching.least, 3, "there was no moment with fewer");
    }
}

/// How many reads the member refused because it does not have that revision.
async fn refused_reads(member: &Member) -> usize {
    let Ok(mut way) = TcpStream::connect(member.url.trim_start_matches("http://")).await else {
        return 0;
    };
    let mut metrics = String::new();
    way.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
    way.read_to_string(&mut metrics).await.unwrap();
    let parts = ["grpc_server_handled_total", "OutOfRange", "\"Range\""];
    let counter = metrics.lines().find(|line| parts.iter().all(|part| line.contains(part)));
    let count = counter.and_then(|line| line.split(' ').next_back());
    count.map_or(0, |count| count.trim().parse().unwrap())
}

#[needs("etcd-3.4", "etcd-3.5", "etcd-3.6")]
#[tokio::test]
async fn the_loss_of_a_member_and_of_the_leader_costs_no_endpoint() {
    for version in VERSIONS {
        let mut etcd = Etcd::start_three(version).await.unwrap();
        etcd.put("1", "10.0.0.1:1");
        let mut urls: Vec<_> = etcd.members.iter().map(|member| member.url.clone()).collect();
        // The member that is followed first is the one that ends.
        urls.rotate_left(2);
        let cluster = Cluster::at(urls.iter().map(|url| &**url)).unwrap();
        let mut watching = Watching::new(&web(cluster));
        watching.until_addresses(&["10.0.0.1:1"]).await;

        etcd.members[2].kill();
        etcd.until_ready_of(&[0, 1]).await;
        etcd.put("2", "10.0.0.1:2");
        watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2"]).await;
        assert_eq!(watching.least, 1);

        // One of three has no leader, whatever it reports: its watch ends, and its news does not
        // count.
        etcd.members[1].kill();
        watching.until_failure().await;
        etcd.members[1].start_again();
        etcd.members[2].start_again();
        etcd.until_ready().await;
        etcd.put("3", "10.0.0.1:3");
        watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3"]).await;
        assert_eq!(watching.least, 1);
    }
}

/// A member at which the user `reader` may read the service, with tokens that live for 1 s.
async fn with_reader(version: &str) -> Option<Etcd> {
    let mut etcd = Etcd::start_with(version, &["--auth-token-ttl=1"]).await?;
    enable_auth(&mut etcd);
    Some(etcd)
}

fn enable_auth(etcd: &mut Etcd) {
    for command in [
        &["user", "add", "root:root"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "reader:secret"],
        &["role", "add", "reader"],
        &["role", "grant-permission", "reader", "read", "--prefix=true", "/evenkeel/web/"],
        &["user", "grant-role", "reader", "reader"],
        &["put", "/evenkeel/web/1", "10.0.0.1:1"],
    ] {
        if command == ["user", "grant-role", "root", "root"] {
            // Created by etcd itself since 3.5, and by hand before.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                etcd.control(&["role", "add", "root"])
            }));
        }
        etcd.control(command);
    }
    etcd.control(&["auth", "enable"]);
    etcd.ask_as("root:root");
}

#[needs("etcd-3.4", "etcd-3.5", "etcd-3.6")]
#[tokio::test]
async fn a_configured_user_also_works_before_authentication_is_enabled() {
    for version in VERSIONS {
        let mut etcd = Etcd::start(version).await.unwrap();
        let cluster = etcd.cluster().user("reader", "secret");
        let mut watching = Watching::new(&web(cluster));
        watching.until_addresses(&[]).await;

        enable_auth(&mut etcd);

        watching.until_addresses(&["10.0.0.1:1"]).await;
        etcd.members[0].kill();
        etcd.members[0].start_again();
        etcd.until_ready().await;
        etcd.put("2", "10.0.0.1:2");
        watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2"]).await;
    }
}

#[needs("etcd-3.4", "etcd-3.5", "etcd-3.6")]
#[tokio::test]
async fn a_user_is_authenticated_and_rights_that_are_taken_away_empty_nothing() {
    for version in VERSIONS {
        let etcd = with_reader(version).await.unwrap();
        let wrong = etcd.cluster().user("reader", "wrong");
        let mut refused = Watching::new(&web(wrong));
        assert!(cause::<MemberRefused>(&**refused.until_failure().await).is_some());
        let mut anonymous = Watching::new(&web(etcd.cluster()));
        anonymous.until_failure().await;

        let mut watching = Watching::new(&web(etcd.cluster().user("reader", "secret")));
        watching.until_addresses(&["10.0.0.1:1"]).await;
        watching.during(ms(2_500)).await;
        etcd.put("2", "10.0.0.1:2");
        watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2"]).await;
        assert_eq!(watching.least, 1);
    }
}

#[needs("etcd-3.4", "etcd-3.5", "etcd-3.6")]
#[tokio::test]
async fn rights_that_are_taken_away_empty_nothing_and_come_back() {
    for version in VERSIONS {
        let mut etcd = with_reader(version).await.unwrap();
        let mut watching = Watching::new(&web(etcd.cluster().user("reader", "secret")));
        watching.until_addresses(&["10.0.0.1:1"]).await;
        let rights = |verb: &str, etcd: &Etcd| match verb {
            "revoke" => etcd.control(&[
                "role",
                "revoke-permission",
                "--prefix=true",
                "reader",
                "/evenkeel/web/",
            ]),
            _ => etcd.control(&[
                "role",
                "grant-permission",
                "--prefix=true",
                "reader",
                "read",
                "/evenkeel/web/",
            ]),
        };

        rights("revoke", &etcd);
        // A watch keeps the rights with which it began; the next one cannot begin.
        etcd.members[0].kill();
        etcd.members[0].start_again();
        let denied = |error: &evenkeel_core::BoxError| {
            cause::<MemberRefused>(&**error).is_some_and(|refused| refused.code == 7)
        };
        while !denied(watching.until_failure().await) {}
        assert_eq!(watching.addresses(), ["10.0.0.1:1"]);

        rights("grant", &etcd);
        etcd.put("2", "10.0.0.1:2");
        watching.until_addresses(&["10.0.0.1:1", "10.0.0.1:2"]).await;
        assert_eq!(watching.least, 1);
    }
}
