//! tower's balancer. Alone it is not `Clone`; behind a `Buffer`, as clients share it today, it is.

use std::time::Duration;

use tower::{
    balance::p2c::Balance,
    buffer::Buffer,
    discover::ServiceList,
    load::{CompleteOnResponse, PeakEwma, PendingRequests},
};

use crate::{
    contender::{Entry, Shared, Unshared},
    leaf::Leaf,
};

/// As many waiting requests as tonic's channel allows.
const MAX_BUFFERED: usize = 1_024;

type PendingList<S> = ServiceList<Vec<PendingRequests<S>>>;
type EwmaList<S> = ServiceList<Vec<PeakEwma<S>>>;

/// Four entries: two loads, alone and behind a `Buffer`.
pub(crate) fn entries<S: Leaf>(leaf: &S) -> Vec<Entry> {
    let [a, b, c, d] = [(); 4].map(|()| leaf.clone());
    vec![
        Entry::new(BALANCE, move |count| {
            let leaf = a.clone();
            Unshared::new(move || pending(&leaf, count))
        })
        .unshared(),
        Entry::new(BALANCE_EWMA, move |count| {
            let leaf = b.clone();
            Unshared::new(move || ewma(&leaf, count))
        })
        .unshared(),
        Entry::new(BUFFER, move |count| Shared(Buffer::new(pending(&c, count), MAX_BUFFERED))),
        Entry::new(BUFFER_EWMA, move |count| Shared(Buffer::new(ewma(&d, count), MAX_BUFFERED))),
    ]
}

pub(crate) const BALANCE: &str = "tower Balance, one a task";
pub(crate) const BALANCE_EWMA: &str = "tower Balance, Peak EWMA, one a task";
pub(crate) const BUFFER: &str = "tower Buffer<Balance>";
pub(crate) const BUFFER_EWMA: &str = "tower Buffer<Balance>, Peak EWMA";

pub(crate) fn pending<S: Leaf>(leaf: &S, count: usize) -> Balance<PendingList<S>, u64> {
    let load = |leaf| PendingRequests::new(leaf, CompleteOnResponse::default());
    Balance::new(ServiceList::new(std::iter::repeat_n(leaf.clone(), count).map(load).collect()))
}

fn ewma<S: Leaf>(leaf: &S, count: usize) -> Balance<EwmaList<S>, u64> {
    const RTT: Duration = Duration::from_millis(1);
    const DECAY: Duration = Duration::from_secs(10);
    let load =
        |leaf| PeakEwma::new(leaf, RTT, DECAY.as_nanos() as f64, CompleteOnResponse::default());
    Balance::new(ServiceList::new(std::iter::repeat_n(leaf.clone(), count).map(load).collect()))
}
