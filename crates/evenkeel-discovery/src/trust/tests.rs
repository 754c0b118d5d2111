//! Tables of what a registry says, and of what its watchers are told then.

use evenkeel_core::discover::Update;

use super::*;
use crate::{clock, error::SourceFailed};

fn endpoint(port: &str) -> Endpoint {
    format!("10.0.0.1:{port}").parse().unwrap()
}

fn answer(ports: &str) -> Answer {
    Answer::new(ports.split_whitespace().map(endpoint).collect())
}

/// A registry, and a watcher that keeps up.
struct Play {
    trust: Trust,
    journal: Journal,
    start: Instant,
    read: u64,
}

/// Plays a table. A line has the time in milliseconds, what is said, and what is told: a set (`=1
/// 2`), an endpoint that joins (`+3`) or leaves (`-1`), a doubt (`?2`), an error (`!refused`).
/// Endpoints are ports.
fn play(table: &str) -> Play {
    let settings = Settings { max_stale: Some(Duration::from_secs(60)), ..Settings::default() };
    let (trust, journal) = (Trust::new(&settings), Journal::new("registry"));
    let mut play = Play { trust, journal, start: clock::now(), read: 0 };
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let columns: Vec<_> = line.split('|').map(str::trim).collect();
        let now = play.start + Duration::from_millis(columns[0].parse().unwrap());
        play.say(now, columns[1].split_once(' ').unwrap_or((columns[1], "")));
        assert_eq!(play.told(), columns[2], "{line}");
    }
    play
}

impl Play {
    fn say(&mut self, now: Instant, (verb, object): (&str, &str)) {
        let (trust, journal) = (&mut self.trust, &mut self.journal);
        match verb {
            "has" => _ = trust.take(journal, answer(object), now),
            "rebuilt" => _ = trust.take(journal, answer(object).rebuilt(true), now),
            "certain" => _ = trust.take(journal, answer(object).certain(), now),
            "ordered" => _ = trust.take(journal, answer(object).ordered(), now),
            "troubled" => {
                _ = trust.take(journal, answer(object).trouble(Some("trouble".into())), now);
            }
            // The changes, and the whole set after them.
            "changes" => {
                let (changes, whole) = object.split_once('=').unwrap();
                let changes = changes.split_whitespace().map(|change| match change.split_at(1) {
                    ("+", port) => Change::Insert(endpoint(port)),
                    (_, port) => Change::Remove(endpoint(port).address),
                });
                trust.change(journal, changes.collect(), || answer(whole).endpoints, now);
            }
            "fails" => trust.fail(journal, object.into(), now),
            "ends" => _ = trust.end_session(now),
            "nothing" => {
                assert_eq!(trust.stale_at(), Some(now), "when the set is too old");
                trust.drop_stale(journal, now);
            }
            other => panic!("{other}"),
        }
    }

    fn told(&mut self) -> String {
        let port = |address: &Address| address.port().unwrap().to_string();
        let mut told = vec![];
        while let Some(news) = self.journal.next(&mut self.read) {
            told.push(match news {
                Ok(Update::Set(set)) => {
                    let ports: Vec<_> = set.iter().map(|e| port(&e.address)).collect();
                    format!("={}", ports.join(" "))
                }
                Ok(Update::Insert(endpoint)) => format!("+{}", port(&endpoint.address)),
                Ok(Update::Remove(address)) => format!("-{}", port(&address)),
                Ok(other) => panic!("{other:?}"),
                Err(error) => {
                    let failed = error.downcast::<SourceFailed>().unwrap();
                    let cause = std::error::Error::source(&*failed).unwrap();
                    match cause.downcast_ref::<NotConfirmed>() {
                        Some(doubted) => format!("?{}", doubted.missing),
                        None if cause.is::<Stale>() => "!stale".into(),
                        None => format!("!{cause}"),
                    }
                }
            });
        }
        told.join(" ")
    }
}

#[test]
fn the_first_answer_is_believed_even_if_it_is_empty() {
    play(
        "0 | has   | =
         1 | has   |
         2 | has 1 | =1",
    );
    play("0 | rebuilt 1 | =1");
}

#[test]
fn an_empty_answer_is_believed_when_it_has_stood_for_a_while() {
    play(
        "0    | has 1 | =1
         1000 | has   | ?1
         5999 | has   |
         6000 | has   | -1
         6001 | has   |",
    );
}

#[test]
fn a_fleet_that_comes_back_one_by_one_never_looks_small() {
    play(
        "0    | has 1 2 3 | =1 2 3
         0    | has       | ?3
         1    | has 2     | ?2
         2    | has 2 4   | +4 ?2
         5000 | has 2 4   | -1 -3",
    );
}

#[test]
fn endpoints_that_a_rebuilt_registry_misses_are_kept_until_it_names_them_again() {
    play(
        "0 | has 1 2   | =1 2
         1 | rebuilt 2 | ?1
         2 | has 2 1   |
         3 | has 1     | -2",
    );
}

#[test]
fn endpoints_that_go_missing_one_by_one_after_an_outage_are_kept() {
    play(
        "0    | has 1 2 3  | =1 2 3
         0    | fails lost | !lost
         0    | ends       |
         2000 | fails lost |
         2000 | ends       |
         3001 | has 1 2 3  |
         3500 | has 2 3    | ?1
         4000 | has 3      | ?2
         5000 | has        | ?3
         6000 | has 2 4    | +4 ?2
         8001 | has 2 4    | -1 -3
         8002 | has 4      | -2",
    );
}

#[test]
fn an_absence_of_a_moment_is_no_reason_for_doubt() {
    play(
        "0    | has 1 2 | =1 2
         0    | ends    |
         3000 | has 1   | -2
         4000 | ends    |
         7001 | has     | ?1",
    );
}

#[test]
fn a_certain_answer_is_believed_and_ends_a_doubt() {
    play(
        "0    | has 1 2   | =1 2
         0    | ends      |
         9000 | certain 1 | -2
         9001 | has       | ?1
         9002 | certain   | -1
         9003 | has 1     | =1",
    );
}

#[test]
fn changes_are_doubted_like_whole_answers() {
    play(
        "0    | has 1 2             | =1 2
         1    | changes +3 -1 = 2 3 | +3 -1
         2    | changes -2 -3 =     | ?2
         3    | changes +3 = 3      | ?1
         4    | changes +2 = 2 3    |
         5    | changes -2 = 3      | -2
         6    | changes -3 =        | ?1
         5006 | changes =           | -3",
    );
    play(
        "0     | has 1 2        | =1 2
         0     | ends           |
         9000  | changes -1 = 2 | ?1
         14000 | has 2          | -1",
    );
    play("0 | changes +1 = 1 2 | =1 2");
}

#[test]
fn each_error_of_an_outage_is_told_once_and_again_in_the_next() {
    play(
        "0 | has 1            | =1
         1 | fails refused    | !refused
         2 | fails reset      | !reset
         3 | fails refused    |
         4 | has 1            |
         5 | fails refused    | !refused
         6 | changes +2 = 1 2 | +2
         7 | fails refused    | !refused",
    );
}

#[test]
fn an_answer_with_trouble_changes_the_set_and_ends_no_failure() {
    let played = play(
        "0    | has 1 2      | =1 2
         1    | troubled 1 2 | !trouble
         2    | troubled 1   | -2
         3    | troubled     | ?1
         5003 | troubled     | -1
         5004 | has 1        | =1",
    );

    let works = |event: &&Event| matches!(event, Event::Works(_));
    let works: Vec<_> = played.trust.events.iter().filter(works).collect();
    assert_eq!(works, [&Event::Works(Duration::from_millis(5_003))]);
}

#[test]
fn a_set_that_is_too_old_is_dropped_and_still_what_the_next_answer_is_compared_with() {
    play(
        "0     | has 1 2       | =1 2
         10    | fails refused | !refused
         10    | ends          |
         60010 | nothing       | = !stale
         60010 | fails refused | !refused
         61000 | has 1 3       | =1 2 3 ?1
         66000 | has 1 3       | -2",
    );
}

#[test]
fn a_doubted_answer_makes_the_set_as_young_as_it_is() {
    play(
        "0      | has 1 2       | =1 2
         10     | fails refused | !refused
         10     | ends          |
         50000  | has 1         | ?1
         51000  | fails refused |
         51000  | ends          |
         111000 | nothing       | = !stale",
    );
}

#[test]
fn sessions_are_counted_from_the_last_answer() {
    let mut played = play("0 | ends |\n 0 | ends |");
    assert_eq!(played.trust.end_session(played.start), 2);

    played.say(played.start, ("has", "1"));
    assert_eq!(played.trust.end_session(played.start), 0);
}

#[test]
fn an_answer_that_ends_a_doubt_or_a_failure_is_never_needless() {
    assert!(play("0 | has 1 | =1").trust.is_settled());
    for unsettled in ["1 | has | ?1", "1 | ends |", "1 | fails refused | !refused"] {
        assert!(!play(&format!("0 | has 1 | =1\n{unsettled}")).trust.is_settled());
    }
}

#[test]
fn an_answer_whose_order_counts_is_told_as_a_whole() {
    play(
        "0 | ordered 2 1 | =2 1
         1 | ordered 1 2 | =1 2
         2 | ordered 1 2 |
         3 | has 2 1     |",
    );
}

#[test]
fn a_set_that_is_kept_for_ever_is_never_stale_and_its_doubt_has_no_end() {
    let settings =
        Settings { max_stale: Some(Duration::MAX), hold: Duration::MAX, ..Settings::default() };
    let (mut trust, mut journal) = (Trust::new(&settings), Journal::new("registry"));
    let now = clock::now();
    trust.take(&mut journal, answer("1 2"), now);
    trust.fail(&mut journal, "refused".into(), now);
    assert_eq!(trust.stale_at(), None);

    trust.take(&mut journal, answer("1").rebuilt(true), now);
    let later = now + Duration::from_secs(86_400);
    trust.take(&mut journal, answer("1"), later);

    assert_eq!(trust.doubted_until(), None);
    assert_eq!(journal.len(), 2, "what is missing is kept");
}
