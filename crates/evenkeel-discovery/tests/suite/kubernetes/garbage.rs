//! Answers that no API server should give, from a simulated one.

use std::time::Instant;

use evenkeel_core::{
    backoff::Backoff,
    discover::{Discovery, Update},
    error::cause,
};
use evenkeel_discovery::kubernetes::{NoSuchPort, ServerRefused};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::kubernetes::{
    ms,
    real::address,
    servers::until,
    simulated::{Reply, Simulated, line, list, page, refusal, slice, status},
    watching::Watching,
    web,
};

fn at(pod: u32) -> String {
    format!("{}:8080", address(pod))
}

fn bookmark(version: u64) -> String {
    line("BOOKMARK", &json!({ "metadata": { "resourceVersion": version.to_string() } }))
}

#[tokio::test]
async fn a_list_comes_in_pages_and_all_at_once_when_the_pages_expire() {
    let (one, two) = (slice("web-a", 4, &[1]), slice("web-b", 5, &[2]));
    let pages =
        [page(7, std::slice::from_ref(&one), "next/+="), list(7, std::slice::from_ref(&two))];
    let simulated = Simulated::start(pages, [Reply::Held(vec![])]).await;
    let mut watching = Watching::new(&web(simulated.server()));
    watching.until_addresses(&[&at(1), &at(2)]).await;
    let asked = simulated.asked();
    assert!(asked[0].contains("limit=500"), "{asked:?}");
    assert!(asked[0].contains("labelSelector=kubernetes.io%2Fservice-name%3Dweb"), "{asked:?}");
    assert!(asked[1].contains("continue=next%2F%2B%3D"), "{asked:?}");

    let pages = [
        page(7, std::slice::from_ref(&one), "next"),
        status(410, "", "Expired"),
        list(9, &[one, two]),
    ];
    let simulated = Simulated::start(pages, [Reply::Held(vec![])]).await;
    let mut watching = Watching::new(&web(simulated.server()));
    watching.until_addresses(&[&at(1), &at(2)]).await;
    assert!(watching.failures.is_empty(), "{:?}", watching.failures);
    assert!(!simulated.asked()[2].contains("limit"), "{:?}", simulated.asked());
}

#[tokio::test]
async fn bookmarks_move_the_version_that_a_watch_goes_on_from() {
    let ended = Reply::Ended(vec![bookmark(21), bookmark(34)]);
    let lists = [list(7, &[slice("web-a", 4, &[1])])];
    let simulated = Simulated::start(lists, [ended, Reply::Held(vec![])]).await;
    let mut watching = Watching::new(&web(simulated.server()));
    watching.until_addresses(&[&at(1)]).await;
    watching.during(ms(500)).await;
    let asked = simulated.asked();
    assert_eq!(asked.len(), 3, "one list and two watches: {asked:?}");
    assert!(asked[1].contains("allowWatchBookmarks=true"), "{asked:?}");
    assert!(asked[1].ends_with("resourceVersion=7"), "{asked:?}");
    assert!(asked[2].ends_with("resourceVersion=34"), "{asked:?}");
}

#[tokio::test]
async fn an_expired_version_within_a_watch_is_answered_by_a_fresh_list_and_no_failure() {
    let expired = Reply::Ended(vec![line("ERROR", &refusal(410, "Expired"))]);
    let lists = [list(7, &[slice("web-a", 4, &[1])]), list(9, &[slice("web-a", 8, &[1, 2])])];
    let simulated = Simulated::start(lists, [expired, Reply::Held(vec![])]).await;
    let mut watching = Watching::new(&web(simulated.server()));
    watching.until_addresses(&[&at(1), &at(2)]).await;
    assert!(watching.failures.is_empty(), "{:?}", watching.failures);
    assert_eq!(watching.least, 1);
}

#[tokio::test]
async fn a_fresh_list_that_says_nothing_new_is_no_news() {
    let joins = line("MODIFIED", &slice("web-a", 8, &[1, 2, 3, 4, 5, 0]));
    let expired = line("ERROR", &refusal(410, "Expired"));
    let lists = [
        list(7, &[slice("web-a", 4, &[1, 2, 3, 4, 5])]),
        list(9, &[slice("web-a", 8, &[1, 2, 3, 4, 5, 0])]),
    ];
    let simulated = Simulated::start(lists, [Reply::Ended(vec![joins, expired])]).await;
    let mut watch = web(simulated.server()).watch();

    assert!(matches!(watch.next().await, Some(Ok(Update::Set(set))) if set.len() == 5));
    let joined = watch.next().await;
    assert!(matches!(&joined, Some(Ok(Update::Insert(one))) if one.address.to_string() == at(0)));
    let more = tokio::time::timeout(ms(1_000), watch.next()).await;
    assert!(more.is_err(), "{more:?}");
    assert!(2 < simulated.asked().iter().filter(|path| !path.contains("watch")).count());
}

#[tokio::test]
async fn garbled_halved_and_refused_answers_change_nothing() {
    let good = || list(7, &[slice("web-a", 4, &[1])]);
    let mut deep = "[".repeat(5_000);
    deep.push('\n');
    for (what, bad) in [
        ("no JSON", Reply::Ended(vec!["<html>".into()])),
        ("deep JSON", Reply::Ended(vec![deep])),
        ("an object without metadata", Reply::Ended(vec![line("ADDED", &json!({}))])),
        ("a number for an object", Reply::Ended(vec![line("ADDED", &json!(7))])),
        ("a broken connection", Reply::Cut(vec![])),
        ("an error", Reply::Ended(vec![line("ERROR", &refusal(500, "InternalError"))])),
        ("a status", status(500, "", "InternalError")),
        ("a status without a body", Reply::Body(503, "", String::new())),
        ("a redirection", Reply::Body(302, "Location: http://127.0.0.1:1/\r\n", String::new())),
    ] {
        let lists = [good(), list(9, &[slice("web-a", 8, &[1, 2])])];
        let simulated = Simulated::start(lists, [bad, Reply::Held(vec![])]).await;
        let mut watching = Watching::new(&web(simulated.server()));
        watching.until_addresses(&[&at(1)]).await;
        watching.until_failure().await;
        watching.until_addresses(&[&at(1), &at(2)]).await;
        assert_eq!(watching.least, 1, "{what}");
    }
    for (what, bad) in [
        ("no JSON", Reply::Body(200, "", "garbage".into())),
        ("another object", Reply::Body(200, "", "[1, 2]".into())),
        (
            "a halved body",
            Reply::Cut(vec!["{\"metadata\":{\"resourceVersion\":\"8\"},\"items\":[".into()]),
        ),
        ("a refusal", status(403, "", "Forbidden")),
    ] {
        let lists = [good(), bad, list(9, &[slice("web-a", 8, &[1, 2])])];
        let simulated = Simulated::start(lists, [Reply::Cut(vec![]), Reply::Held(vec![])]).await;
        let mut watching = Watching::new(&web(simulated.server()));
        watching.until_addresses(&[&at(1), &at(2)]).await;
        assert!(!watching.failures.is_empty(), "{what}");
        assert_eq!(watching.least, 1, "{what}");
    }
}

#[tokio::test]
async fn a_slice_or_an_endpoint_that_cannot_be_read_does_not_affect_the_others() {
    let mut odd = slice("web-a", 4, &[1, 2, 3]);
    odd["endpoints"][1]["addresses"] = json!(["10.0.0.256"]);
    odd["endpoints"][2]["addresses"] = json!([]);
    let mut nameless = slice("web-x", 4, &[4]);
    nameless["endpoints"] = json!("all of them");
    let mut no_port = slice("web-y", 4, &[5]);
    no_port["ports"] = json!([{ "name": "http", "port": 65_536 }]);
    let mut port_0 = slice("web-z", 4, &[6]);
    port_0["ports"] = json!([{ "name": "http", "port": 0 }]);
    let mut v6 = slice("web-6", 4, &[7]);
    v6["addressType"] = json!("IPv6");
    let mut host = slice("web-h", 4, &[8]);
    host["addressType"] = json!("FQDN");
    host["endpoints"][0]["addresses"] = json!(["db.example.test"]);
    let unreadable = line(
        "MODIFIED",
        &json!({ "metadata": { "name": "web-h", "resourceVersion": "9" }, "endpoints": 7 }),
    );
    let lists = [list(7, &[odd, nameless, no_port, port_0, v6, host])];
    let simulated = Simulated::start(lists, [Reply::Held(vec![unreadable])]).await;

    let mut watching = Watching::new(&web(simulated.server()));
    watching.until_addresses(&[&at(1), "db.example.test:8080"]).await;
    watching.during(ms(300)).await;
    assert!(watching.failures.is_empty(), "{:?}", watching.failures);
    assert_eq!(watching.least, 2, "an unreadable slice stays as it was");
}

#[tokio::test]
async fn a_server_that_asks_for_time_gets_it() {
    let busy = status(429, "Retry-After: 1\r\n", "TooManyRequests");
    let lists = [busy, list(7, &[slice("web-a", 4, &[1])])];
    let simulated = Simulated::start(lists, [Reply::Held(vec![])]).await;
    let began = Instant::now();
    let mut watching = Watching::new(&web(simulated.server()));
    let failure = watching.until_failure().await;
    let refused = cause::<ServerRefused>(&**failure).unwrap();
    assert_eq!((refused.status, refused.retry_after), (429, Some(ms(1_000))));
    watching.until_addresses(&[&at(1)]).await;
    assert!(ms(1_000) <= began.elapsed(), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_server_that_ends_every_watch_at_once_is_not_asked_in_a_loop() {
    let lists = [list(7, &[slice("web-a", 4, &[1])])];
    let simulated = Simulated::start(lists, [Reply::Ended(vec![])]).await;
    let mut watching = Watching::new(&web(simulated.server()));
    watching.until_addresses(&[&at(1)]).await;
    watching.during(ms(3_000)).await;
    let asked = simulated.asked().len();
    assert!((3..=15).contains(&asked), "{asked} questions in 3 s");
    assert!(watching.failures.is_empty(), "{:?}", watching.failures);

    let expired = Reply::Ended(vec![line("ERROR", &refusal(410, "Expired"))]);
    let lists = [list(7, &[slice("web-a", 4, &[1])])];
    let simulated = Simulated::start(lists, [expired]).await;
    let mut watching = Watching::new(&web(simulated.server()));
    watching.until_addresses(&[&at(1)]).await;
    watching.during(ms(3_000)).await;
    let asked = simulated.asked().len();
    assert!((3..=25).contains(&asked), "{asked} questions in 3 s");
}

#[tokio::test]
async fn a_watch_that_says_nothing_is_asked_for_again() {
    let lists = [list(7, &[slice("web-a", 4, &[1])])];
    let event = Reply::Held(vec![line("MODIFIED", &slice("web-a", 8, &[1, 2]))]);
    let simulated = Simulated::start(lists, [Reply::Held(vec![]), event]).await;
    let never = Backoff::new(ms(600_000), ms(600_000));
    let mut watching = Watching::new(&web(simulated.server()).quiet(ms(200)).backoff(never));
    watching.until_addresses(&[&at(1), &at(2)]).await;
    assert!(watching.failures.is_empty(), "{:?}", watching.failures);
}

#[tokio::test]
async fn a_version_that_goes_back_is_answered_by_a_list_that_is_doubted() {
    let lists = [list(50, &[slice("web-a", 40, &[1, 2])]), list(9, &[slice("web-a", 8, &[1])])];
    let back = Reply::Held(vec![bookmark(8)]);
    let simulated = Simulated::start(lists, [back, Reply::Held(vec![])]).await;
    let mut watching = Watching::new(&web(simulated.server()).hold(ms(300)));
    watching.until_addresses(&[&at(1), &at(2)]).await;
    let failed = watching.until_failure().await.to_string();
    assert!(failed.contains("endpoints kept: 2"), "{failed}");
    watching.until_addresses(&[&at(1)]).await;
}

#[tokio::test]
async fn an_old_server_that_has_only_the_beta_version_is_understood() {
    let mut beta = slice("web-a", 4, &[1]);
    beta["endpoints"][0]["topology"] =
        json!({ "topology.kubernetes.io/zone": "a", "kubernetes.io/hostname": "node-1" });
    let lists = [status(404, "", "NotFound"), list(7, &[beta])];
    let simulated = Simulated::start(lists, [Reply::Held(vec![])]).await;
    let mut watching = Watching::new(&web(simulated.server()));
    watching.until_addresses(&[&at(1)]).await;
    let endpoint = watching.find(&at(1)).unwrap();
    assert_eq!(endpoint.zone.as_deref(), Some("a"));
    assert_eq!(endpoint.metadata["kubernetes.node"], "node-1");
    let asked = simulated.asked();
    assert!(asked[1].starts_with("/apis/discovery.k8s.io/v1beta1/"), "{asked:?}");
}

/// A slice with a port of this name.
fn with_port(name: &str, version: u64, pods: &[u32], port: &str) -> Value {
    let mut slice = slice(name, version, pods);
    slice["ports"] = json!([{ "name": port, "port": 9090 }]);
    slice
}

#[tokio::test]
async fn a_port_that_is_renamed_slice_by_slice_costs_no_endpoint_that_exists() {
    let renamed = Reply::Held(vec![
        line("MODIFIED", &with_port("web-a", 8, &[1, 2], "web")),
        line("ADDED", &with_port("web-c", 9, &[3, 4], "web")),
        line("DELETED", &slice("web-b", 10, &[3, 4])),
        // Two of the known pods end, and one pod is new.
        line("MODIFIED", &with_port("web-a", 11, &[1], "web")),
        line("MODIFIED", &with_port("web-c", 12, &[4, 5], "web")),
    ]);
    let lists = [list(7, &[slice("web-a", 4, &[1, 2]), slice("web-b", 5, &[3, 4])])];
    let simulated = Simulated::start(lists, [renamed]).await;
    let mut watching = Watching::new(&web(simulated.server()));
    watching.until_addresses(&[&at(1), &at(2), &at(3), &at(4)]).await;

    watching.until_addresses(&[&at(1), &at(4)]).await;
    // It is reported once, before or after the last change.
    if watching.failures.is_empty() {
        watching.until_failure().await;
    }
    let failure = &watching.failures[0];
    assert!(cause::<NoSuchPort>(&**failure).is_some(), "{failure}");
    assert_eq!(watching.least, 2);
}

#[tokio::test]
async fn endpoints_of_a_port_that_is_gone_leave_when_they_stop() {
    let ended = Reply::Ended(vec![line("MODIFIED", &with_port("web-a", 8, &[1], "web"))]);
    let gone = Reply::Held(vec![line("MODIFIED", &with_port("web-a", 9, &[2], "web"))]);
    let lists = [list(7, &[slice("web-a", 4, &[1])])];
    let simulated = Simulated::start(lists, [ended, gone]).await;
    let mut watching = Watching::new(&web(simulated.server()).hold(ms(100)));
    watching.until_addresses(&[&at(1)]).await;
    watching.until_failure().await;
    watching.until(std::collections::BTreeMap::is_empty).await;
}

#[tokio::test]
async fn a_port_that_stays_lost_is_one_failure_whatever_else_changes() {
    let watches = [
        Reply::Ended(vec![line("MODIFIED", &with_port("web-a", 8, &[1, 2, 3], "web"))]),
        Reply::Ended(vec![line("MODIFIED", &with_port("web-a", 9, &[1, 2, 3], "web"))]),
        Reply::Ended(vec![line("MODIFIED", &with_port("web-a", 10, &[1, 2], "web"))]),
        Reply::Held(vec![line("MODIFIED", &with_port("web-a", 11, &[1], "web"))]),
    ];
    let lists = [list(7, &[slice("web-a", 4, &[1, 2, 3])])];
    let simulated = Simulated::start(lists, watches).await;
    let mut watching = Watching::new(&web(simulated.server()));
    watching.until_addresses(&[&at(1), &at(2), &at(3)]).await;

    watching.until_addresses(&[&at(1)]).await;
    watching.during(ms(100)).await;
    assert_eq!(watching.failures.len(), 1, "{:?}", watching.failures);
}

#[tokio::test]
async fn host_names_stay_when_their_port_is_renamed() {
    let named = |version: u64, port: &str| {
        let mut slice = with_port("web-a", version, &[], port);
        slice["addressType"] = "FQDN".into();
        slice["endpoints"] =
            json!([{ "addresses": ["a.internal"] }, { "addresses": ["b.internal"] }]);
        slice
    };
    let renamed = Reply::Held(vec![line("MODIFIED", &named(8, "web"))]);
    let simulated = Simulated::start([list(7, &[named(4, "http")])], [renamed]).await;
    let mut watching = Watching::new(&web(simulated.server()).hold(ms(50)));
    watching.until_addresses(&["a.internal:9090", "b.internal:9090"]).await;

    watching.until_failure().await;
    watching.during(ms(200)).await;

    assert_eq!(watching.least, 2);
}

/// The requests for lists, among all requests.
fn lists_of(simulated: &Simulated) -> Vec<String> {
    let mut asked = simulated.asked();
    asked.retain(|path| !path.contains("watch=true"));
    asked
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_causes_no_further_list() {
    let lists = [list(7, &[slice("web-a", 4, &[1])])];
    let simulated = Simulated::start(lists, [Reply::Held(vec![])]).await;
    let web = web(simulated.server());
    let mut watching = Watching::new(&web);
    watching.until_addresses(&[&at(1)]).await;

    web.refresh();
    until("a check of the watch", || async { simulated.asked().len() == 3 }).await;
    for _ in 0..5 {
        web.refresh();
        watching.during(ms(50)).await;
    }
    assert_eq!(lists_of(&simulated).len(), 1, "{:?}", simulated.asked());
    assert!(simulated.asked()[2].ends_with("resourceVersion=7"), "{:?}", simulated.asked());
    assert!(watching.failures.is_empty(), "{:?}", watching.failures);
}

#[tokio::test]
async fn a_list_after_a_failure_is_read_at_the_version_that_is_known_and_else_from_etcd() {
    let lists = [
        list(7, &[slice("web-a", 4, &[1])]),
        // A server without data would wait for that version, and give up.
        status(504, "", "Timeout"),
        list(9, &[slice("web-a", 8, &[1, 2])]),
        page(12, &[slice("web-a", 11, &[1, 2, 3])], "next"),
        list(12, &[slice("web-b", 10, &[4])]),
    ];
    let cut = || Reply::Cut(vec![]);
    let simulated = Simulated::start(lists, [cut(), cut(), Reply::Held(vec![])]).await;
    let mut watching = Watching::new(&web(simulated.server()));
    watching.until_addresses(&[&at(1), &at(2), &at(3), &at(4)]).await;

    let asked = lists_of(&simulated);
    let at_version = |path: &str, version: &str| {
        let known = format!("resourceVersion={version}");
        path.contains(&known) && path.contains("resourceVersionMatch=NotOlderThan")
    };
    assert!(!asked[0].contains("resourceVersion"), "{asked:?}");
    assert!(at_version(&asked[1], "7"), "{asked:?}");
    assert!(!asked[2].contains("resourceVersion"), "{asked:?}");
    assert!(at_version(&asked[3], "9"), "{asked:?}");
    assert!(asked[4].contains("continue=next") && !asked[4].contains("resourceVersion"));
    assert_eq!(asked.len(), 5, "{asked:?}");
}

#[tokio::test]
async fn a_port_that_is_lost_while_a_loss_is_doubted_is_no_busy_loop() {
    let mut other_port = slice("web-a", 10, &[1]);
    other_port["ports"] = json!([{ "name": "web", "port": 8080 }]);
    let emptied = Reply::Ended(vec![line("MODIFIED", &slice("web-a", 9, &[]))]);
    let lost = Reply::Held(vec![line("MODIFIED", &other_port)]);
    let lists = [list(7, &[slice("web-a", 4, &[1])])];
    let simulated = Simulated::start(lists, [emptied, lost]).await;
    let mut watching = Watching::new(&web(simulated.server()).hold(ms(100)));
    watching.until_addresses(&[&at(1)]).await;
    watching.until_failure().await;
    watching.during(ms(300)).await;

    let before = ticks_of_this_thread();
    watching.during(ms(1_000)).await;
    let busy = ticks_of_this_thread() - before;
    assert!(busy < 20, "{busy} hundredths of a second of computing in one second");
    assert_eq!(watching.least, 1);
}

/// The CPU time of this thread, which runs everything in a test, in hundredths of a second.
fn ticks_of_this_thread() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    // The name in parentheses may contain any character; user time is the twelfth field after it.
    let fields = stat.rsplit_once(')').unwrap().1;
    fields.split_whitespace().nth(11).unwrap().parse().unwrap()
}
