//! Bad days: what a registry, or the network before it, can do to its followers.
//!
//! The servers are real, behind a proxy through which bytes come late, one by one, in part, garbled
//! or not at all. Other servers answer in their place. Each time the last good set stays, the
//! failure is reported, and the discovery recovers by itself afterwards. Unreadable single entries
//! are in `entries.rs`.

mod entries;
mod outages;
#[cfg(feature = "tls")]
mod tls;

#[cfg(feature = "kubernetes")]
use crate::conformance::kubernetes;
#[cfg(feature = "tls")]
use crate::support::tls_front;
#[cfg(feature = "consul")]
use crate::{conformance::consul, consul::real as consul_real};
#[cfg(feature = "etcd")]
use crate::{conformance::etcd, etcd::real as etcd_real};
use crate::{
    conformance::harness,
    support::{faulty, servers, slow_motion, watching},
};

/// All tests for one registry, with the servers that it needs. The last argument is for registries
/// in which services enter themselves.
macro_rules! bad_days {
    ($($(#[$condition:meta])* $name:ident($($server:literal)*): $harness:ty $(, $registers:ident)?;)*) => {$(
        $(#[$condition])*
        mod $name {
            bad_days!(@tests ($($server)*) $harness,
                a_registry_that_is_away_at_the_start_is_found_when_it_comes,
                bytes_that_come_late_or_one_by_one_make_the_same_set,
                an_answer_that_is_held_is_given_up,
                an_answer_that_is_cut_off_anywhere_empties_nothing,
                garbled_bytes_empty_nothing,
                connections_that_are_closed_each_second_lose_no_change,
                the_last_set_stays_whatever_answers_in_its_place,
                an_endpoint_missing_soon_after_an_outage_is_kept_for_a_while,
                an_endpoint_that_left_in_an_outage_is_kept_for_a_bounded_time,
                an_outage_is_logged_when_it_begins_and_when_it_ends,
                $($registers,)?
            );
        }
    )*};
    (@tests $servers:tt $harness:ty, $($test:ident,)*) => {
        $(bad_days!(@test $servers $harness, $test);)*
    };
    (@test ($($server:literal)*) $harness:ty, $test:ident) => {
        #[needs::needs($($server)*)]
        #[tokio::test]
        async fn $test() {
            use crate::bad_days::harness::Harness;
            crate::bad_days::outages::$test(<$harness>::start().await.unwrap()).await;
        }
    };
}

bad_days! {
    #[cfg(feature = "consul")]
    over_consul("consul"):
        crate::bad_days::consul::OneAgent<0>, a_registration_heals_after_outages_and_holds_up_no_service;
    #[cfg(feature = "etcd")]
    over_etcd_3_4("etcd-3.4"):
        crate::bad_days::etcd::OneMember<0>, a_registration_heals_after_outages_and_holds_up_no_service;
    #[cfg(feature = "etcd")]
    over_etcd_3_5("etcd-3.5"):
        crate::bad_days::etcd::OneMember<1>, a_registration_heals_after_outages_and_holds_up_no_service;
    #[cfg(feature = "etcd")]
    over_etcd_3_6("etcd-3.6"):
        crate::bad_days::etcd::OneMember<2>, a_registration_heals_after_outages_and_holds_up_no_service;
    #[cfg(feature = "kubernetes")]
    over_kubernetes("apiserver" "etcd-3.5"): crate::bad_days::kubernetes::OneServer;
}
