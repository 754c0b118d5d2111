//! pingora-load-balancing's selection: it names a backend and makes no request. Each select loads
//! the selector, sets up the set of backends it has seen, looks up the backend's health and clones
//! it.

use std::{hint::black_box, sync::Arc};

use pingora_load_balancing::{
    LoadBalancer,
    selection::{BackendIter, BackendSelection, Consistent, Random, RoundRobin},
};

use crate::{
    contender::{Contender, Entry, Work},
    leaf::endpoints,
};

/// As many backends as an index of 16 bits can name.
const BACKENDS_MAX: usize = u16::MAX as usize;

/// Three entries: round robin, random and ketama.
pub(crate) fn entries() -> Vec<Entry> {
    vec![
        entry::<RoundRobin>("round robin").endpoints_max(BACKENDS_MAX),
        entry::<Random>("random").endpoints_max(BACKENDS_MAX),
        ketama(),
    ]
}

/// 160 points per backend; with more points, building takes seconds.
pub(crate) const KETAMA_MAX: usize = 10_000;

/// The entry that hashes.
pub(crate) fn ketama() -> Entry {
    entry::<Consistent>("ketama").endpoints_max(KETAMA_MAX)
}

/// Builds the hashing selector.
pub(crate) fn build_ketama(count: usize) -> impl Sized {
    balancer::<Consistent>(count)
}

fn entry<B>(selection: &str) -> Entry
where
    B: BackendSelection<Iter: BackendIter> + Send + Sync + 'static,
{
    Entry::new(format!("pingora, selection only, {selection}"), |count| {
        let balancer = balancer::<B>(count);
        Selection(Arc::new(balancer))
    })
}

struct Selection<B: BackendSelection>(Arc<LoadBalancer<B>>);

impl<B> Contender for Selection<B>
where
    B: BackendSelection<Iter: BackendIter> + Send + Sync + 'static,
{
    fn work(&self, requests: u64) -> Work {
        let balancer = self.0.clone();
        Box::pin(async move {
            for request in 0..requests {
                black_box(balancer.select(&request.to_le_bytes(), 256));
            }
        })
    }
}

fn balancer<B>(count: usize) -> LoadBalancer<B>
where
    B: BackendSelection<Iter: BackendIter> + Send + Sync + 'static,
{
    let addresses = endpoints(count).into_iter().map(|endpoint| endpoint.address.to_string());
    LoadBalancer::try_from_iter(addresses).expect("addresses are addresses")
}
