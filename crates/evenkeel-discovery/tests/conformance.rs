//! The rules that every source of endpoints keeps, one test for each rule and each registry.
//!
//! The rules are those that registries and their clients elsewhere are known to break. A registry joins
//! with one file: an implementation of [`Harness`](harness::Harness), a `mod` and a line of
//! [`conformance!`]. What it cannot express it says in
//! [`EXEMPT`](harness::Harness::EXEMPT), with the reason.
//!
//! | | rule |
//! |---|---|
//! | C1 | all parts of a set make one set |
//! | C2 | what is said of readiness counts, and to say nothing means to be ready |
//! | C3 | a set that is empty is told as empty, at first and later |
//! | C4 | a moment in which the registry knows nothing empties nothing |
//! | C5 | a lost past is answered by a fresh list |
//! | C6 | every change of a batch is applied |
//! | C7 | a position that goes backwards is noticed |
//! | C8 | while the registry fails, the last set stays, and that is told once |
//! | C9 | a registry that is down is asked at a rest that grows |
//! | C10 | a name is not a prefix of others |
//! | C11 | an IPv6 address is an address |
//! | C12 | a registration heals itself |
//! | C13 | weights and tiers count |
//! | C14 | a change of metadata costs no connection |
//! | C15 | who fails is left out unless it is asked for |
//! | C16 | what a balancer knows of an endpoint survives changes of the set |
//! | C17 | a retry goes where the call has not been |
//! | C18 | where that is wanted, no request comes before the first good check |

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic and read the clock"
)]

#[path = "conformance/balancing.rs"]
mod balancing;
#[path = "conformance/channel.rs"]
mod channel;
#[cfg(feature = "consul")]
#[path = "conformance/consul.rs"]
mod consul;
#[cfg(feature = "consul")]
#[path = "consul/real.rs"]
mod consul_real;
#[cfg(feature = "dns")]
#[path = "conformance/dns.rs"]
mod dns;
#[cfg(feature = "etcd")]
#[path = "conformance/etcd.rs"]
mod etcd;
#[cfg(feature = "etcd")]
#[path = "etcd/real.rs"]
mod etcd_real;
#[cfg(feature = "json")]
#[path = "conformance/file.rs"]
mod file;
#[path = "conformance/fixed.rs"]
mod fixed;
#[path = "conformance/harness.rs"]
mod harness;
#[cfg(feature = "kubernetes")]
#[path = "conformance/kubernetes.rs"]
mod kubernetes;
#[cfg(feature = "kubernetes")]
#[path = "kubernetes/real.rs"]
mod real;
#[path = "conformance/rules.rs"]
mod rules;
#[path = "support/servers.rs"]
mod servers;
#[cfg(feature = "dns")]
#[path = "dns/simulated.rs"]
mod simulated;
#[path = "support/slow_motion.rs"]
mod slow_motion;
#[path = "support/watching.rs"]
mod watching;

/// All rules for one registry.
macro_rules! conformance {
    ($($(#[$condition:meta])* $name:ident: $harness:ty,)*) => {$(
        $(#[$condition])*
        mod $name {
            use crate::{balancing, harness::Rule::*, rules};

            conformance!(@rules $harness,
                C1 rules::all_parts_make_one_set,
                C2 rules::readiness_counts_and_silence_is_readiness,
                C3 rules::an_empty_set_is_told_as_empty,
                C4 rules::a_moment_without_knowledge_empties_nothing,
                C5 rules::a_lost_past_is_answered_by_a_fresh_list,
                C6 rules::every_change_of_a_batch_is_applied,
                C7 rules::a_position_that_goes_backwards_is_noticed,
                C8 rules::the_last_set_stays_while_the_registry_fails,
                C9 rules::a_registry_that_is_down_is_asked_at_a_rest_that_grows,
                C10 rules::a_name_is_not_a_prefix,
                C11 rules::an_ipv6_address_is_an_address,
                C12 rules::a_registration_heals_itself,
                C13 rules::weights_and_tiers_count,
                C14 balancing::a_change_of_metadata_costs_no_connection,
                C15 rules::who_fails_is_left_out,
                C16 balancing::what_is_known_of_an_endpoint_survives_changes,
                C17 balancing::a_retry_goes_where_the_call_has_not_been,
                C18 balancing::no_request_comes_before_the_first_good_check,
            );
        }
    )*};
    (@rules $harness:ty, $($rule:ident $module:ident::$test:ident,)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            if let Some(harness) = crate::harness::start::<$harness>($rule).await {
                $module::$test(harness).await;
            }
        }
    )*};
}

conformance! {
    over_a_fixed_list: crate::fixed::FixedList,
    over_a_channel: crate::channel::Channel,
    #[cfg(feature = "json")]
    over_a_file: crate::file::OneFile,
    #[cfg(feature = "dns")]
    over_dns: crate::dns::Records,
    #[cfg(feature = "consul")]
    over_consul: crate::consul::OneAgent,
    #[cfg(feature = "etcd")]
    over_etcd_3_4: crate::etcd::OneMember<0>,
    #[cfg(feature = "etcd")]
    over_etcd_3_5: crate::etcd::OneMember<1>,
    #[cfg(feature = "etcd")]
    over_etcd_3_6: crate::etcd::OneMember<2>,
    #[cfg(feature = "kubernetes")]
    over_kubernetes: crate::kubernetes::OneServer,
}
