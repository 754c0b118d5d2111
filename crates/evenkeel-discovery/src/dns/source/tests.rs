//! The rules of time and belief, with a simulated resolver and a paused clock.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use evenkeel_core::{
    discover::{Discovery, Update, Watch},
    error::cause,
};
use hickory_resolver::{
    net::{DnsError, NetError},
    proto::op::ResponseCode,
};
use tokio::time::timeout;

use super::*;
use crate::watch::{Reconnect, Stale};

const HOUR: Duration = Duration::from_secs(3_600);

type Said<T> = Result<(Vec<T>, u64), &'static str>;

/// A simulated resolver, which answers with its content.
#[derive(Clone)]
struct Simulated(Arc<Zone>);

struct Zone {
    /// The full names that any name may stand for; if empty, the name itself.
    names: Vec<&'static str>,
    /// The answers for full names, which come before `v4`.
    named: Mutex<HashMap<&'static str, Said<&'static str>>>,
    v4: Mutex<Said<&'static str>>,
    v6: Mutex<Said<&'static str>>,
    services: Mutex<Said<Service>>,
    asked: AtomicUsize,
    times: Mutex<Vec<Instant>>,
}

impl Simulated {
    fn new(v4: &[&'static str], ttl: u64) -> Self {
        Self::searching(&[], v4, ttl)
    }

    /// A resolver with these full names, each of which has only the answers of `answer_for`.
    fn searching(names: &[&'static str], v4: &[&'static str], ttl: u64) -> Self {
        let denied = names.iter().map(|name| (*name, Ok((vec![], ttl)))).collect();
        Self(Arc::new(Zone {
            names: names.to_vec(),
            named: Mutex::new(denied),
            v4: Mutex::new(Ok((v4.to_vec(), ttl))),
            v6: Mutex::new(Ok((vec![], ttl))),
            services: Mutex::new(Ok((vec![], ttl))),
            asked: AtomicUsize::new(0),
            times: Mutex::default(),
        }))
    }

    fn answer(&self, v4: Said<&'static str>) {
        *self.0.v4.lock().unwrap() = v4;
    }

    fn answer_for(&self, name: &'static str, addresses: Said<&'static str>) {
        self.0.named.lock().unwrap().insert(name, addresses);
    }

    fn host(&self) -> Reconnect<DnsSource<Self>> {
        let question = Question::Host { host: "db.test".into(), port: 80 };
        let source = DnsSource::new(question, self.clone());
        Reconnect::new(source).max_stale(Duration::from_secs(300)).seed(1)
    }

    fn service(&self) -> Reconnect<DnsSource<Self>> {
        let question = Question::Service { name: "_a._tcp.test".into() };
        Reconnect::new(DnsSource::new(question, self.clone())).seed(1)
    }

    /// The seconds between two questions.
    fn gaps(&self) -> Vec<f64> {
        let times = self.0.times.lock().unwrap();
        times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect()
    }
}

impl Resolver for Simulated {
    type Session = Self;

    fn session(&self) -> Result<Self, BoxError> {
        Ok(self.clone())
    }
}

fn answer<T: Clone, U>(
    said: &Mutex<Said<T>>,
    read: impl Fn(T) -> U,
) -> Result<Answer<U>, BoxError> {
    let (records, ttl) = said.lock().unwrap().clone().map_err(error)?;
    let records = records.into_iter().map(read).collect();
    Ok(Answer { records, ttl: Duration::from_secs(ttl) })
}

fn error(text: &'static str) -> BoxError {
    match text {
        "SERVFAIL" => NetError::from(DnsError::ResponseCode(ResponseCode::ServFail)).into(),
        other => other.into(),
    }
}

impl Ask for Simulated {
    fn names(&self, name: &str) -> Vec<Arc<str>> {
        match &*self.0.names {
            [] => vec![name.into()],
            names => names.iter().map(|name| Arc::from(*name)).collect(),
        }
    }

    async fn addresses(&self, host: &str, family: Family) -> Result<Answer<IpAddr>, BoxError> {
        if family == Family::V4 {
            self.0.asked.fetch_add(1, SeqCst);
            self.0.times.lock().unwrap().push(clock::now());
        }
        if host == "away.test." {
            return Err(error("SERVFAIL"));
        }
        if let Some(said) = self.0.named.lock().unwrap().get(host).cloned() {
            let (addresses, ttl) = said.map_err(error)?;
            let ips = addresses.into_iter().map(|ip| ip.parse::<IpAddr>().unwrap());
            let records = ips.filter(|ip| ip.is_ipv6() == (family == Family::V6)).collect();
            return Ok(Answer { records, ttl: Duration::from_secs(ttl) });
        }
        match family {
            Family::V4 => answer(&self.0.v4, |ip| ip.parse().unwrap()),
            Family::V6 => answer(&self.0.v6, |ip| ip.parse().unwrap()),
        }
    }

    async fn services(&self, _: &str) -> Result<Answer<Service>, BoxError> {
        answer(&self.0.services, |service| service)
    }
}

fn endpoints(addresses: &[&str]) -> Vec<Endpoint> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

/// Two endpoints, each with the other as its alternative.
fn both(v6: &str, v4: &str) -> Vec<Endpoint> {
    let endpoint = |address: &str, other: &str| {
        endpoints(&[address]).remove(0).alternatives(other.parse::<std::net::SocketAddr>())
    };
    vec![endpoint(v6, v4), endpoint(v4, v6)]
}

async fn next(watch: &mut Watch) -> Result<Vec<Endpoint>, BoxError> {
    let news = timeout(HOUR, watch.next()).await.expect("news within an hour").expect("no end");
    news.map(|update| match update {
        Update::Set(endpoints) => endpoints,
        other => panic!("DNS is told as a whole, not as {other:?}"),
    })
}

#[tokio::test(start_paused = true)]
async fn a_name_is_asked_for_again_before_its_answer_expires() {
    for (ttl, least, most) in [(10, 7.0, 8.0), (0, 1.0, 1.0), (86_400, 21.0, 24.0)] {
        let zone = Simulated::new(&["10.0.0.1"], ttl);
        let mut watch = zone.host().watch();
        next(&mut watch).await.unwrap();

        assert!(timeout(HOUR, watch.next()).await.is_err(), "the same answer is no news");

        let gaps = zone.gaps();
        assert!(100 < gaps.len());
        let fits = |gap: &f64| least <= *gap + 0.002 && *gap <= most + 0.002;
        assert!(gaps.iter().all(fits), "ttl {ttl}: {gaps:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_asks_at_once_and_at_most_once_a_second() {
    let zone = Simulated::new(&["10.0.0.1"], 30);
    let dns = zone.host();
    let mut watch = dns.watch();
    next(&mut watch).await.unwrap();
    zone.answer(Ok((vec!["10.0.0.2"], 30)));
    let start = clock::now();

    dns.refresh();
    assert_eq!(next(&mut watch).await.unwrap(), endpoints(&["10.0.0.2:80"]));
    assert_eq!(start.elapsed(), Duration::ZERO);

    for _ in 0..100 {
        dns.refresh();
        let _ = timeout(Duration::from_millis(100), watch.next()).await;
    }
    let asked = zone.0.asked.load(SeqCst);
    assert!((12..=15).contains(&asked), "asked {asked} times in ten seconds of refreshes");
}

#[tokio::test(start_paused = true)]
async fn a_denial_is_believed_when_a_later_answer_confirms_it() {
    let zone = Simulated::new(&["10.0.0.1"], 5);
    let mut watch = zone.host().watch();
    next(&mut watch).await.unwrap();

    zone.answer(Ok((vec![], 20)));
    let denied = next(&mut watch).await.unwrap_err();
    assert!(cause::<NotConfirmed>(&*denied).is_some());
    let denied_at = clock::now();

    assert_eq!(next(&mut watch).await.unwrap(), []);
    assert_eq!(denied_at.elapsed().as_secs(), 20, "not before the negative answer has expired");
    assert!(cause::<NoSuchName>(&*next(&mut watch).await.unwrap_err()).is_some());

    assert!(timeout(HOUR, watch.next()).await.is_err(), "it is told once");
    zone.answer(Ok((vec!["10.0.0.2"], 5)));
    assert_eq!(next(&mut watch).await.unwrap(), endpoints(&["10.0.0.2:80"]));
}

#[tokio::test(start_paused = true)]
async fn a_denial_that_is_taken_back_changes_nothing() {
    let zone = Simulated::new(&["10.0.0.1"], 5);
    let mut watch = zone.host().watch();
    next(&mut watch).await.unwrap();

    zone.answer(Ok((vec![], 20)));
    next(&mut watch).await.unwrap_err();
    zone.answer(Ok((vec!["10.0.0.1"], 5)));

    assert!(timeout(HOUR, watch.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_name_that_never_existed_is_announced_as_an_empty_set_after_two_answers() {
    let zone = Simulated::new(&[], 5);
    let mut watch = zone.host().watch();

    assert!(cause::<NotConfirmed>(&*next(&mut watch).await.unwrap_err()).is_some());
    assert_eq!(next(&mut watch).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn addresses_outlive_a_dead_server_for_five_minutes() {
    let zone = Simulated::new(&["10.0.0.1"], 5);
    let mut watch = zone.host().watch();
    next(&mut watch).await.unwrap();

    zone.answer(Err("SERVFAIL"));
    next(&mut watch).await.unwrap_err();
    let failed_at = clock::now();

    assert_eq!(next(&mut watch).await.unwrap(), []);
    assert_eq!(failed_at.elapsed().as_secs(), 300);
    assert!(cause::<Stale>(&*next(&mut watch).await.unwrap_err()).is_some());

    zone.answer(Ok((vec!["10.0.0.1"], 5)));
    while next(&mut watch).await.is_err() {}
}

#[tokio::test(start_paused = true)]
async fn one_family_is_enough_and_the_other_is_remembered() {
    let zone = Simulated::new(&["10.0.0.1"], 5);
    *zone.0.v6.lock().unwrap() = Ok((vec!["::1"], 5));
    let mut watch = zone.host().watch();
    assert_eq!(next(&mut watch).await.unwrap(), both("[::1]:80", "10.0.0.1:80"));

    *zone.0.v6.lock().unwrap() = Err("timeout");
    zone.answer(Ok((vec!["10.0.0.2"], 5)));
    assert_eq!(next(&mut watch).await.unwrap(), both("[::1]:80", "10.0.0.2:80"));
    let failed_at = clock::now();
    assert_eq!(next(&mut watch).await.unwrap(), endpoints(&["10.0.0.2:80"]));
    assert!((290..=305).contains(&failed_at.elapsed().as_secs()), "it became too old");

    let zone = Simulated::new(&[], 5);
    zone.answer(Err("timeout"));
    *zone.0.v6.lock().unwrap() = Ok((vec!["::1"], 5));
    assert_eq!(next(&mut zone.host().watch()).await.unwrap(), endpoints(&["[::1]:80"]));
}

fn service(priority: u16, weight: u16, port: u16, target: &str) -> Service {
    Service { priority, weight, port, target: target.into() }
}

#[tokio::test(start_paused = true)]
async fn a_target_that_fails_costs_only_its_own_endpoints() {
    let zone = Simulated::new(&["10.0.0.1"], 30);
    let records = vec![service(0, 2, 80, "a.test."), service(1, 1, 81, "away.test.")];
    *zone.0.services.lock().unwrap() = Ok((records, 30));
    let mut watch = zone.service().watch();

    let expected = endpoints(&["10.0.0.1:80"]).into_iter().map(|e| e.weight(2)).collect::<Vec<_>>();
    assert_eq!(next(&mut watch).await.unwrap(), expected);
    assert!(timeout(Duration::from_secs(60), watch.next()).await.is_err());
    assert!(zone.gaps().iter().all(|gap| *gap <= 5.0), "a missing part is asked for sooner");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_not_offered_is_believed_empty_and_port_zero_is_skipped() {
    let zone = Simulated::new(&["10.0.0.1"], 5);
    let records = vec![service(0, 1, 0, "a.test."), service(0, 1, 80, "b.test.")];
    *zone.0.services.lock().unwrap() = Ok((records, 5));
    let mut watch = zone.service().watch();
    assert_eq!(next(&mut watch).await.unwrap(), endpoints(&["10.0.0.1:80"]));

    *zone.0.services.lock().unwrap() = Ok((vec![service(0, 0, 0, ".")], 5));
    assert_eq!(next(&mut watch).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn services_whose_targets_all_fail_are_a_failure_and_not_an_empty_set() {
    let zone = Simulated::new(&[], 5);
    *zone.0.services.lock().unwrap() = Ok((vec![service(0, 1, 80, "away.test.")], 5));
    let mut watch = zone.service().watch();

    next(&mut watch).await.unwrap_err();
    assert!(timeout(HOUR, watch.next()).await.is_err(), "it never becomes an empty set");
}

#[tokio::test(start_paused = true)]
async fn the_first_full_name_with_addresses_counts_and_no_other_adds_to_it() {
    let zone = Simulated::searching(&["db.a.", "db.b.", "db."], &[], 5);
    zone.answer_for("db.b.", Ok((vec!["10.0.0.2"], 5)));
    zone.answer_for("db.", Ok((vec!["10.0.0.3", "::3"], 5)));
    let mut watch = zone.host().watch();

    assert_eq!(next(&mut watch).await.unwrap(), endpoints(&["10.0.0.2:80"]));
    assert!(timeout(HOUR, watch.next()).await.is_err(), "the address of another name is no news");

    zone.answer_for("db.a.", Ok((vec!["::1"], 5)));
    assert_eq!(next(&mut watch).await.unwrap(), endpoints(&["[::1]:80"]));
}

#[tokio::test(start_paused = true)]
async fn a_full_name_that_fails_is_not_hidden_by_others_that_are_denied() {
    let zone = Simulated::searching(&["db.a.", "db.b.", "db."], &[], 5);
    zone.answer_for("db.a.", Ok((vec!["10.0.0.1"], 5)));
    let mut watch = zone.host().watch();
    assert_eq!(next(&mut watch).await.unwrap(), endpoints(&["10.0.0.1:80"]));

    zone.answer_for("db.a.", Err("SERVFAIL"));
    let failed = next(&mut watch).await.unwrap_err();
    assert!(failed.to_string().contains("endpoints kept: 1"), "{failed}");
    assert!(timeout(Duration::from_secs(290), watch.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_full_name_that_fails_is_not_replaced_by_one_that_never_counted() {
    let zone = Simulated::searching(&["db.a.", "db.b."], &[], 5);
    zone.answer_for("db.a.", Ok((vec!["10.0.0.1"], 5)));
    let mut watch = zone.host().watch();
    next(&mut watch).await.unwrap();

    zone.answer_for("db.a.", Err("SERVFAIL"));
    zone.answer_for("db.b.", Ok((vec!["10.0.0.2"], 5)));
    next(&mut watch).await.unwrap_err();
    assert!(timeout(Duration::from_secs(290), watch.next()).await.is_err());

    // One denial does not change it either; two do.
    zone.answer_for("db.a.", Ok((vec![], 5)));
    assert!(cause::<NotConfirmed>(&*next(&mut watch).await.unwrap_err()).is_some());
    assert_eq!(next(&mut watch).await.unwrap(), endpoints(&["10.0.0.2:80"]));
}

#[tokio::test(start_paused = true)]
async fn a_search_domain_that_always_fails_is_passed_over() {
    let zone = Simulated::searching(&["db.a.", "db."], &[], 5);
    zone.answer_for("db.a.", Err("SERVFAIL"));
    zone.answer_for("db.", Ok((vec!["10.0.0.1"], 5)));
    let mut watch = zone.host().watch();
    assert_eq!(next(&mut watch).await.unwrap(), endpoints(&["10.0.0.1:80"]));

    zone.answer_for("db.", Ok((vec!["10.0.0.2"], 5)));
    assert_eq!(next(&mut watch).await.unwrap(), endpoints(&["10.0.0.2:80"]));

    // When no server answers at all, no further name is asked.
    zone.answer_for("db.a.", Err("timeout"));
    zone.answer_for("db.", Ok((vec!["10.0.0.3"], 5)));
    next(&mut watch).await.unwrap_err();
    assert!(timeout(Duration::from_secs(290), watch.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_name_none_of_whose_full_names_exist_is_empty_after_two_answers() {
    let zone = Simulated::searching(&["db.a.", "db."], &[], 5);
    let mut watch = zone.host().watch();

    assert!(cause::<NotConfirmed>(&*next(&mut watch).await.unwrap_err()).is_some());
    assert_eq!(next(&mut watch).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn targets_are_asked_for_by_their_own_time_to_live() {
    let zone = Simulated::new(&["10.0.0.1"], 30);
    let records = vec![service(0, 1, 80, "a.test."), service(0, 1, 81, "b.test.")];
    *zone.0.services.lock().unwrap() = Ok((records, 2));
    let mut watch = zone.service().watch();
    next(&mut watch).await.unwrap();

    assert!(timeout(Duration::from_secs(60), watch.next()).await.is_err());
    assert_eq!(zone.0.asked.load(SeqCst), 2 * 3, "at 0, and at 21 to 24 s two times");
}

#[tokio::test(start_paused = true)]
async fn many_targets_are_not_all_asked_for_each_time() {
    let zone = Simulated::new(&["10.0.0.1"], 2);
    let hosts: Vec<_> = (0..200).map(|n| format!("h{n}.test.")).collect();
    let records = hosts.iter().map(|host| service(0, 1, 80, host)).collect();
    *zone.0.services.lock().unwrap() = Ok((records, 2));
    let dns = zone.service();
    let mut watch = dns.watch();
    next(&mut watch).await.unwrap();
    assert_eq!(zone.0.asked.load(SeqCst), 200, "the first time all of them");

    let asked_in = async |watch: &mut Watch, seconds: u64| {
        let before = zone.0.asked.load(SeqCst);
        for _ in 0..seconds {
            dns.refresh();
            assert!(timeout(Duration::from_secs(1), watch.next()).await.is_err());
        }
        zone.0.asked.load(SeqCst) - before
    };
    let asked = asked_in(&mut watch, 60).await;
    assert!((200..=60 * 17 + 3 * 16).contains(&asked), "asked for {asked} names in a minute");

    // Each target has its turn: after 200 / 16 s all are known to have moved.
    *zone.0.v4.lock().unwrap() = Ok((vec!["10.0.0.2"], 2));
    for _ in 0..20 {
        dns.refresh();
        let _ = timeout(Duration::from_secs(1), watch.next()).await;
    }
    let mut late = dns.watch();
    let expected = endpoints(&["10.0.0.2:80"]);
    assert_eq!(next(&mut late).await.unwrap(), expected);
}
