use evenkeel_core::{
    endpoint::{Address, Endpoint},
    node::Node,
};
use evenkeel_layers::balance::BalanceLayer;
use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};
use tower::{Layer, Service, ServiceExt};
#[derive(Clone)]
struct Nothing;
impl Service<u64> for Nothing {
    type Response = u64;
    type Error = Infallible;
    type Future = Ready<Result<u64, Infallible>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, r: u64) -> Self::Future {
        ready(Ok(r + 1))
    }
}
fn eps(n: usize) -> Vec<Endpoint> {
    (0..n)
        .map(|i| {
            Endpoint::new(Address::from(std::net::SocketAddr::from((
                [10, (i >> 16) as u8, (i >> 8) as u8, i as u8],
                80,
            ))))
            .weight(1 + (i % 3) as u32)
        })
        .collect()
}
const R: u64 = 2_000_000;
#[tokio::main]
async fn main() {
    for n in [3usize, 10, 1000, 10_000, 100_000] {
        for (name, layer) in [
            ("rr", BalanceLayer::round_robin(eps(n))),
            ("random", BalanceLayer::random(eps(n))),
            ("wrr", BalanceLayer::weighted_round_robin(eps(n))),
            ("wrandom", BalanceLayer::weighted_random(eps(n))),
            ("p2c", BalanceLayer::p2c(eps(n))),
            ("wp2c", BalanceLayer::weighted_p2c(eps(n))),
            ("ewma", BalanceLayer::peak_ewma(eps(n))),
        ] {
            print!("{n:6} {name:8}");
            for tasks in [1u64, 2, 64] {
                let mut s = layer.layer(|_: &Arc<Node>| Nothing);
                ServiceExt::<u64>::ready(&mut s).await.unwrap();
                let t = Instant::now();
                let hs: Vec<_> = (0..tasks)
                    .map(|_| {
                        let mut s = s.clone();
                        tokio::spawn(async move {
                            for i in 0..R / tasks {
                                s.ready().await.unwrap().call(i).await.unwrap();
                            }
                        })
                    })
                    .collect();
                for h in hs {
                    h.await.unwrap();
                }
                print!(" {:8.1}", t.elapsed().as_nanos() as f64 / R as f64);
            }
            println!();
        }
    }
}
