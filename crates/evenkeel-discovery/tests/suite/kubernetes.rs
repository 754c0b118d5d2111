//! Kubernetes: a real API server over a real etcd, and a simulated one for what no real one does.
//!
//! The rules that every source of endpoints has to keep, and the test for each here:
//!
//! | rule | test |
//! |---|---|
//! | all parts of a set together | `all_slices_of_a_service_are_one_set` |
//! | readiness counts, and an unstated readiness means ready | `ready_endpoints_serve_terminating_ones_drain_and_the_others_are_removed` |
//! | an empty set is reported when it is truly empty | `an_empty_service_is_announced_at_once_and_one_that_ends_after_a_while` |
//! | no temporary empty or partial set | `a_server_that_restarts_without_data_empties_nothing` |
//! | a lost position is answered by a fresh list | `an_expired_version_is_answered_by_a_fresh_list` |
//! | every change of a batch is applied | `many_changes_at_once_are_all_applied` |
//! | a position that regresses is noticed | `a_server_that_restarts_without_data_empties_nothing` |
//! | the last good set stays on errors, which are reported | `a_server_that_restarts_costs_no_endpoint` |
//! | no busy loop, no fixed rest | `a_server_that_ends_every_watch_at_once_is_not_asked_in_a_loop` |
//! | a name is not a prefix | `all_slices_of_a_service_are_one_set` |
//! | IPv6 | `a_pod_with_two_addresses_counts_once` |
//! | what has not changed is not announced | `an_endpoint_that_moves_between_slices_is_never_missing_and_is_no_news` |
//!
//! Kubernetes has no weights, and pods do not register themselves.

mod access;
mod controllers;
mod faults;
mod following;
mod garbage;
mod proxy;
pub(crate) mod real;
mod simulated;

use crate::{support::servers, support::watching};

use std::time::Duration;

use evenkeel_core::backoff::Backoff;
use evenkeel_discovery::kubernetes::{ApiServer, Kubernetes};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The service `web` in `shop`, with waits short enough that a test need not wait for seconds.
fn web(server: ApiServer) -> Kubernetes {
    let web = Kubernetes::new(server.timeout(ms(3_000)), "web").namespace("shop").port("http");
    web.backoff(Backoff::new(ms(20), ms(100))).hold(ms(400))
}
