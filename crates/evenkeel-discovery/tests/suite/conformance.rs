//! The rules that every source of endpoints keeps, one test for each rule and each registry.
//!
//! The rules are those that registries and their clients elsewhere are known to break. To add a
//! registry takes one file: an implementation of [`Harness`](harness::Harness), a `mod` and an
//! entry of [`conformance!`], which names the rules that do not apply to it, with the reason.
//!
//! | | rule |
//! |---|---|
//! | C1 | all parts of a set make one set |
//! | C2 | readiness counts, and an unstated readiness means ready |
//! | C3 | an empty set is reported as empty, at first and later |
//! | C4 | a moment in which the registry is empty empties nothing |
//! | C5 | a lost history is answered by a fresh list |
//! | C6 | every change of a batch is applied |
//! | C7 | a position that goes backwards is noticed |
//! | C8 | while the registry fails, the last set stays, and the failure is reported once |
//! | C9 | a registry that is down is asked at growing intervals |
//! | C10 | a name is not a prefix of others |
//! | C11 | an IPv6 address is an address |
//! | C12 | a registration heals itself |
//! | C13 | weights and tiers count |
//! | C14 | a change of metadata costs no connection |
//! | C15 | an endpoint that fails is left out unless it is asked for |
//! | C16 | what a balancer knows about an endpoint survives changes of the set |
//! | C17 | a retry goes to an endpoint that the call has not reached |
//! | C18 | if configured so, no request comes before the first good check |

mod balancing;
mod channel;
#[cfg(feature = "consul")]
pub(crate) mod consul;
#[cfg(feature = "dns")]
mod dns;
#[cfg(feature = "etcd")]
pub(crate) mod etcd;
#[cfg(feature = "json")]
mod file;
mod fixed;
pub(crate) mod harness;
#[cfg(feature = "kubernetes")]
pub(crate) mod kubernetes;
mod rules;

#[cfg(feature = "consul")]
use crate::consul::real as consul_real;
#[cfg(feature = "dns")]
use crate::dns::simulated;
#[cfg(feature = "etcd")]
use crate::etcd::real as etcd_real;
#[cfg(feature = "kubernetes")]
use crate::kubernetes::real;
use crate::{support::servers, support::slow_motion, support::watching};

/// All rules for one registry: the servers that it needs, and the rules that do not apply to it,
/// with the reason. Those are listed among the tests as ignored.
macro_rules! conformance {
    ($($(#[$condition:meta])* $name:ident($($server:literal)*): $harness:ty {
        $($exempt:ident $reason:literal,)*
    })*) => {$(
        $(#[$condition])*
        mod $name {
            use crate::conformance::{balancing, harness::Harness, rules};

            conformance!(@one ($) ($($server)*) $harness { $($exempt $reason,)* });
        }
    )*};
    (@one ($d:tt) ($($server:literal)*) $harness:ty { $($exempt:ident $reason:literal,)* }) => {
        macro_rules! rule {
            $(($exempt $d module:ident::$d test:ident) => {
                #[test]
                #[ignore = $reason]
                fn $d test() {}
            };)*
            ($d rule:ident $d module:ident::$d test:ident) => {
                #[needs::needs($($server)*)]
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $d test() {
                    $d module::$d test(<$harness>::start().await.unwrap()).await;
                }
            };
        }

        rule!(C1 rules::all_parts_make_one_set);
        rule!(C2 rules::readiness_counts_and_an_unstated_readiness_means_ready);
        rule!(C3 rules::an_empty_set_is_announced_as_empty);
        rule!(C4 rules::a_moment_without_data_empties_no_set);
        rule!(C5 rules::a_lost_history_is_answered_by_a_fresh_list);
        rule!(C6 rules::every_change_of_a_batch_is_applied);
        rule!(C7 rules::a_position_that_goes_backwards_is_noticed);
        rule!(C8 rules::the_last_set_stays_while_the_registry_fails);
        rule!(C9 rules::a_registry_that_is_down_is_asked_at_growing_intervals);
        rule!(C10 rules::a_name_is_not_a_prefix);
        rule!(C11 rules::an_ipv6_address_is_an_address);
        rule!(C12 rules::a_registration_heals_itself);
        rule!(C13 rules::weights_and_tiers_count);
        rule!(C14 balancing::a_change_of_metadata_costs_no_connection);
        rule!(C15 rules::an_endpoint_that_fails_is_left_out);
        rule!(C16 balancing::what_is_known_of_an_endpoint_survives_changes);
        rule!(C17 balancing::a_retry_goes_where_the_call_has_not_been);
        rule!(C18 balancing::no_request_comes_before_the_first_good_check);
    };
}

conformance! {
    over_a_fixed_list(): crate::conformance::fixed::FixedList {
        C2 "a list does not change",
        C4 "a list does not change",
        C5 "a list has no past",
        C6 "a list does not change",
        C7 "a list has no position",
        C8 "a list does not fail",
        C9 "a list does not fail",
        C10 "a list has no name",
        C12 "no service enters itself in a list",
        C14 "a list does not change",
        C15 "an endpoint that fails is not put into a list",
        C16 "a list does not change",
    }
    over_a_channel(): crate::conformance::channel::Channel {
        C4 "what is told is what is meant",
        C7 "a channel has no position",
        C9 "a channel asks for nothing",
        C10 "a channel has no name",
        C12 "no service enters itself in a channel",
        C15 "an endpoint that fails is not put into a channel",
    }
    #[cfg(feature = "json")]
    over_a_file(): crate::conformance::file::OneFile {
        C9 "a file is looked at when it changes, and at an interval, failing or not",
        C10 "a file has no name inside",
        C12 "no service enters itself in a file",
        C15 "an endpoint that fails is not written into a file",
    }
    #[cfg(feature = "dns")]
    over_dns(): crate::conformance::dns::Records {
        C2 "weight 0 is a small share in SRV records: what is there is ready",
        C5 "DNS tells no changes that could be lost",
        C7 "answers carry no position",
        C12 "no service enters itself in DNS",
        C14 "records have no metadata",
        C15 "what is there is well, as far as DNS knows",
    }
    #[cfg(feature = "consul")]
    over_consul_1_8("consul"): crate::conformance::consul::OneAgent<0> {}
    #[cfg(feature = "consul")]
    over_consul_1_14("consul-1.14"): crate::conformance::consul::OneAgent<1> {}
    #[cfg(feature = "etcd")]
    over_etcd_3_4("etcd-3.4"): crate::conformance::etcd::OneMember<0> {}
    #[cfg(feature = "etcd")]
    over_etcd_3_5("etcd-3.5"): crate::conformance::etcd::OneMember<1> {}
    #[cfg(feature = "etcd")]
    over_etcd_3_6("etcd-3.6"): crate::conformance::etcd::OneMember<2> {}
    #[cfg(feature = "kubernetes")]
    over_kubernetes("apiserver" "etcd-3.5"): crate::conformance::kubernetes::OneServer {
        C9 "the rests are those of the one loop: watch.rs",
        C12 "pods do not enter themselves: the controllers do it for them",
        C13 "it knows neither weights nor tiers",
    }
}
