//! One TCP connection to the first of several addresses that answers (RFC 8305).

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use evenkeel_core::error::is_of_this_host;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::net::TcpStream;

/// The bounds of how long an address may be silent before the next is also tried (RFC 8305, section 5).
const MIN_ATTEMPT_DELAY: Duration = Duration::from_millis(10);
const MAX_ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How long one of `addresses` may be silent before the next is also tried, so that each has its try within
/// `timeout`.
pub(crate) fn attempt_delay(timeout: Duration, addresses: usize) -> Duration {
    let parts = u32::try_from(addresses).unwrap_or(u32::MAX).saturating_add(1);
    (timeout / parts).clamp(MIN_ATTEMPT_DELAY, MAX_ATTEMPT_DELAY)
}

/// Connects to the first of `addresses` that answers, alternating between the families.
///
/// The next address is tried when the one before has failed, or has been silent for `delay`. The other
/// connections are closed.
///
/// # Errors
/// If all fail: the last error about an address, else the last error. If one family refuses, it does not
/// matter that this host has no route for the other.
pub(crate) async fn connect(addresses: Vec<SocketAddr>, delay: Duration) -> io::Result<TcpStream> {
    let mut waiting = interleave(addresses).into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut last_error: Option<io::Error> = None;
    loop {
        match waiting.next() {
            Some(address) => attempts.push(async move {
                TcpStream::connect(address).await.map_err(|error| tell_apart(address, error))
            }),
            None if attempts.is_empty() => {
                return Err(last_error.unwrap_or_else(|| {
                    io::Error::new(io::ErrorKind::NotFound, "the name has no addresses")
                }));
            }
            None => {}
        }
        let is_last = waiting.len() == 0;
        let finished = if is_last {
            attempts.next().await
        } else {
            match tokio::time::timeout(delay, attempts.next()).await {
                Ok(finished) => finished,
                Err(_) => continue,
            }
        };
        match finished {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(error)) => last_error = Some(more_telling(last_error, error)),
            None => {}
        }
    }
}

/// `EADDRNOTAVAIL` means that this host has no port left, or no address of this family to connect from. In
/// the second case the endpoint cannot be reached from here, as without a route.
fn tell_apart(address: SocketAddr, error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::AddrNotAvailable {
        return error;
    }
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // Sends nothing: the system only looks for a source address.
    let has_source = UdpSocket::bind(any).and_then(|socket| socket.connect(address)).is_ok();
    if has_source { error } else { io::ErrorKind::NetworkUnreachable.into() }
}

/// Of two errors, the one about its address, else the later.
fn more_telling(before: Option<io::Error>, error: io::Error) -> io::Error {
    match before {
        Some(before) if is_without_way(&error) && !is_without_way(&before) => before,
        _ => error,
    }
}

/// Whether the address was not contacted, since this host has no route to it.
fn is_without_way(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NetworkUnreachable || is_of_this_host(error)
}

/// Orders addresses so that the families alternate, starting with the family of the first.
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_ipv6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_ipv6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut ordered = Vec::with_capacity(first.len() + second.len());
    while 0 < first.len() + second.len() {
        ordered.extend(first.next());
        ordered.extend(second.next());
    }
    ordered
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const DELAY: Duration = MAX_ATTEMPT_DELAY;

    #[test]
    fn every_address_has_its_try_within_the_timeout() {
        let ms = Duration::from_millis;
        assert_eq!(attempt_delay(ms(10_000), 2), ms(250));
        assert_eq!(attempt_delay(ms(500), 3), ms(125));
        assert_eq!(attempt_delay(ms(60), 2), ms(20));
        assert_eq!(attempt_delay(ms(60), 100), ms(10));
        assert_eq!(attempt_delay(Duration::MAX, usize::MAX), ms(250));
        assert_eq!(attempt_delay(Duration::ZERO, 0), ms(10));
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_the_first_keeps_its_place() {
        let mixed = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "1.0.0.1:1", "1.0.0.2:1"]);
        let expected = addresses(&["[::1]:1", "1.0.0.1:1", "[::2]:1", "1.0.0.2:1", "[::3]:1"]);
        assert_eq!(interleave(mixed), expected);
        assert_eq!(interleave(Vec::new()), []);
        let single = addresses(&["1.0.0.1:1", "1.0.0.2:1"]);
        assert_eq!(interleave(single.clone()), single);
    }

    #[test]
    fn a_family_without_a_route_does_not_hide_a_refusal() {
        use io::ErrorKind::{ConnectionRefused, NetworkUnreachable, TimedOut};
        let told = |before: Option<io::ErrorKind>, error: io::ErrorKind| {
            more_telling(before.map(Into::into), error.into()).kind()
        };
        assert_eq!(told(Some(ConnectionRefused), NetworkUnreachable), ConnectionRefused);
        assert_eq!(told(Some(NetworkUnreachable), ConnectionRefused), ConnectionRefused);
        assert_eq!(told(Some(ConnectionRefused), TimedOut), TimedOut);
        assert_eq!(told(None, NetworkUnreachable), NetworkUnreachable);
    }

    #[test]
    fn a_lack_of_ports_is_told_apart_from_a_lack_of_source_addresses_in_both_families() {
        let told = |address: &str| {
            let lacking = io::ErrorKind::AddrNotAvailable.into();
            tell_apart(address.parse().unwrap(), lacking).kind()
        };
        assert_eq!(told("127.0.0.1:1"), io::ErrorKind::AddrNotAvailable);
        // If this can be bound, there is a source address.
        let has_ipv6 = UdpSocket::bind("[::1]:0").is_ok();
        let expected = [io::ErrorKind::NetworkUnreachable, io::ErrorKind::AddrNotAvailable];
        assert_eq!(told("[::1]:1"), expected[usize::from(has_ipv6)]);
        // Link-local addresses lead nowhere without their interface.
        assert_eq!(told("[fe80::1]:1"), io::ErrorKind::NetworkUnreachable);
        let refused = io::ErrorKind::ConnectionRefused;
        let address = "127.0.0.1:1".parse().unwrap();
        assert_eq!(tell_apart(address, refused.into()).kind(), refused);
    }

    #[tokio::test]
    async fn an_address_that_refuses_gives_way_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let refusing = TcpListener::bind("127.0.0.2:0").await.unwrap().local_addr().unwrap();

        // Far below the delay for silent addresses.
        let stream = tokio::time::timeout(DELAY / 2, connect(vec![refusing, good], DELAY)).await;

        assert_eq!(stream.unwrap().unwrap().peer_addr().unwrap(), good);
    }

    #[tokio::test]
    async fn the_last_error_is_given_when_all_refuse() {
        let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let error = connect(vec![refusing, refusing], DELAY).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(connect(Vec::new(), DELAY).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
