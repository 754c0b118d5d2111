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
const MAX_BACKENDS: usize = u16::MAX as usize;

/// Three entries: round robin, random and ketama.
pub(crate) fn entries() -> Vec<Entry> {
    vec![
        entry::<RoundRobin>("round robin").max_endpoints(MAX_BACKENDS),
        entry::<Random>("random").max_endpoints(MAX_BACKENDS),
        ketama(),
    ]
}

/// 160 points per backend; with more points, building takes seconds.
pub(crate) const MAX_KETAMA_ENDPOINTS: usize = 10_000;

/// The entry that hashes.
pub(crate) fn ketama() -> Entry {
    entry::<Consistent>("ketama").max_endpoints(MAX_KETAMA_ENDPOINTS)
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
