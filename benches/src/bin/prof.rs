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
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let layer = BalanceLayer::p2c(eps(10));
    let mut s = layer.layer(|_: &Arc<Node>| Nothing);
    for i in 0..200_000u64 {
        ServiceExt::<u64>::ready(&mut s).await.unwrap().call(i).await.unwrap();
    }
}
