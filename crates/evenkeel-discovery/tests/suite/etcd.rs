//! etcd: real members of three versions, in clusters of one and of three.
//!
//! The rules that every source of endpoints has to keep, and the test for each here:
//!
//! | rule | test |
//! |---|---|
//! | all parts of a set together | `a_list_of_many_pages_is_one_set` |
//! | an empty set is reported when it is truly empty | `an_empty_service_is_announced_at_once_and_one_that_ends_after_a_while` |
//! | no temporary empty or partial set | `a_member_that_restarts_without_data_empties_nothing` |
//! | a lost position is answered by a fresh list | `a_compacted_position_is_answered_by_a_fresh_list` |
//! | every change of a batch is applied | `every_event_of_a_batch_is_applied` |
//! | a position that regresses is noticed | `a_member_that_restarts_without_data_empties_nothing` |
//! | the last good set stays on errors, which are reported | `a_member_that_hangs_costs_no_endpoint_and_is_followed_again` |
//! | no busy loop, no fixed rest | the one loop behind all sources: `tests/watch.rs` |
//! | a name is not a prefix | `a_service_is_not_taken_for_one_with_a_longer_name` |
//! | IPv6 | `endpoints_join_change_and_leave` |
//! | weights count | `endpoints_join_change_and_leave` |
//! | a registration heals itself | `tests/register.rs` |
//!
//! etcd has no health checks: every entry counts as healthy, and that of a dead instance goes with
//! its lease.

mod faults;
mod following;
pub(crate) mod real;

use crate::{support::servers, support::slow_motion, support::watching};

use std::time::Duration;

use evenkeel_core::backoff::Backoff;
use evenkeel_discovery::etcd::{Cluster, Etcd};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The service `web`, with waits short enough that a test need not wait for seconds.
fn web(cluster: Cluster) -> Etcd {
    let web = Etcd::new(cluster.timeout(ms(2_000)), "web");
    web.backoff(Backoff::new(ms(20), ms(100))).hold(ms(400)).quiet(ms(300))
}
