//! Consul: real agents, and a simulated one for what a real one cannot be made to do.
//!
//! The rules that every source of endpoints has to keep, and the test for each here:
//!
//! | rule | test |
//! |---|---|
//! | all parts of a set together | `several_nodes_make_one_set` |
//! | only healthy instances, by default | `health_weights_and_maintenance_are_followed` |
//! | an empty set is reported when it is truly empty | `a_service_that_ends_is_empty_after_a_while` |
//! | no temporary empty or partial set | `an_agent_that_restarts_without_data_empties_nothing` |
//! | a lost position is answered by a fresh list | `an_index_that_goes_backwards_causes_a_full_query` |
//! | every change of a batch is applied | `many_changes_at_once_all_arrive` |
//! | a position that regresses is noticed | `an_index_that_goes_backwards_causes_a_full_query`, `an_index_of_zero_is_no_busy_loop` |
//! | the last good set stays on errors, which are reported | `whatever_an_agent_answers_the_last_set_stays` |
//! | no busy loop, no fixed rest | `queries_without_news_slow_down` |
//! | a name is not a prefix | `a_service_is_not_taken_for_one_with_a_longer_name` |
//! | IPv6 | `addresses_are_found_as_they_are_entered` |
//! | weights count | `health_weights_and_maintenance_are_followed` |
//! | a registration heals itself | `tests/register.rs` |
//!
//! Rules about balancing rather than discovery are tested elsewhere: state that survives a change,
//! a change of metadata that costs no connection, retries elsewhere, and a first verdict before
//! traffic.

mod acl;
mod faults;
mod following;
pub(crate) mod real;
mod simulated;
#[cfg(feature = "tls")]
mod tls;

#[cfg(feature = "tls")]
use crate::support::tls_front;
use crate::{support::servers, support::watching};

use std::time::Duration;

use evenkeel_core::backoff::Backoff;
use evenkeel_discovery::consul::{Agents, Consul};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The service `web`, with waits short enough that a test need not wait for seconds.
fn web(agents: Agents) -> Consul {
    let web = Consul::new(agents.timeout(ms(2_000)), "web");
    web.backoff(Backoff::new(ms(20), ms(100))).hold(ms(400)).wait(ms(2_000))
}

fn at(url: &str) -> Agents {
    Agents::at([url]).unwrap()
}
