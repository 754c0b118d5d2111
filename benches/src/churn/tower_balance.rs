//! The same changes for tower's balancer.

use std::convert::Infallible;

use evenkeel_core::{discover::Update, endpoint::Address};
use futures_util::stream::poll_fn;
use tokio::sync::mpsc::unbounded_channel;
use tower::{
    Service, ServiceExt,
    balance::p2c::Balance,
    discover,
    load::{CompleteOnResponse, PendingRequests},
};

use super::{Change, REPETITIONS, Took, generation};
use crate::{clock::Stopwatch, leaf::Nothing};

type Event = discover::Change<Address, PendingRequests<Nothing>>;

pub(super) async fn measure(change: Change, count: usize) -> Took {
    let (events, mut receiver) = unbounded_channel::<Event>();
    let discover = poll_fn(move |cx| receiver.poll_recv(cx).map(|e| e.map(Ok::<_, Infallible>)));
    let mut balance = Balance::<_, u64>::new(discover);
    let mut set = Vec::new();
    let send = |event| events.send(event).expect("it is followed");
    let first = Update::Set(generation(count, 0));
    self::events(first, &mut set).into_iter().for_each(send);
    balance.ready().await.expect("an endpoint is ready");

    let mut samples = Vec::with_capacity(REPETITIONS);
    for repetition in 0..REPETITIONS {
        let events = self::events((change.update)(count, repetition), &mut set);

        let stopwatch = Stopwatch::start();
        events.into_iter().for_each(send);
        let ready = balance.ready().await.expect("an endpoint is ready");
        let applied = stopwatch.nanos();

        let stopwatch = Stopwatch::start();
        ready.call(1).await.expect("every endpoint answers");
        samples.push((applied, stopwatch.nanos()));
        balance.ready().await.expect("an endpoint is ready");
    }
    Took {
        applied: samples.iter().map(|(applied, _)| *applied).collect(),
        request: samples.iter().map(|(_, request)| *request).collect(),
    }
}

/// An update as tower's discovery sends it, which does not support whole sets.
fn events(update: Update, set: &mut Vec<Address>) -> Vec<Event> {
    let insert = |address| {
        let service = PendingRequests::new(Nothing, CompleteOnResponse::default());
        Event::Insert(address, service)
    };
    match update {
        Update::Insert(endpoint) => vec![insert(endpoint.address)],
        Update::Remove(address) => vec![Event::Remove(address)],
        Update::Set(endpoints) => {
            let new: Vec<_> = endpoints.into_iter().map(|endpoint| endpoint.address).collect();
            let old = std::mem::replace(set, new.clone());
            old.into_iter().map(Event::Remove).chain(new.into_iter().map(insert)).collect()
        }
        update => unreachable!("the benches make no {update:?}"),
    }
}
