//! Limits on open connections: in total, and per address.

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tracing::{debug, warn};

/// Pause after the system failed to accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Limits on open connections. Clones share them.
#[derive(Debug, Clone)]
pub struct ConnectionLimits(Arc<Shared>);

struct Shared {
    total: Arc<Semaphore>,
    per_address: usize,
    /// Addresses without a limit of their own: proxies carry the connections of many clients.
    is_exempt: Box<dyn Fn(IpAddr) -> bool + Send + Sync>,
    open: Mutex<HashMap<IpAddr, usize>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { total, per_address, open, .. } = self;
        formatter
            .debug_struct("ConnectionLimits")
            .field("total", total)
            .field("per_address", per_address)
            .field("open", open)
            .finish_non_exhaustive()
    }
}

/// An open connection, which counts until this is dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    limits: ConnectionLimits,
    /// Unless its address has no limit.
    address: Option<IpAddr>,
    _total: OwnedSemaphorePermit,
}

impl ConnectionLimits {
    /// At most `total` connections.
    #[must_use]
    pub fn total(total: usize) -> Self {
        Self::new(total, usize::MAX, |_| true)
    }

    /// At most `total` connections, and `per_address` from one address (of IPv6: from one /64
    /// network) that is not exempt.
    #[must_use]
    pub fn new(
        total: usize,
        per_address: usize,
        is_exempt: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
    ) -> Self {
        let total = Arc::new(Semaphore::new(total.min(Semaphore::MAX_PERMITS)));
        Self(Arc::new(Shared { total, per_address, is_exempt: Box::new(is_exempt), open: Mutex::default() }))
    }

    /// Waits until one more connection is allowed, and accepts the next one whose address is below
    /// its limit. The wait may be cancelled.
    ///
    /// A failure of the system, such as a lack of file descriptors, is logged, and followed by a
    /// pause.
    pub async fn accept(&self, listener: &TcpListener) -> (TcpStream, SocketAddr, ConnectionPermit) {
        loop {
            let total = Arc::clone(&self.0.total).acquire_owned().await;
            let total = total.expect("the semaphore is never closed");
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(failure) if is_of_the_client(&failure) => continue,
                Err(failure) => {
                    warn!(%failure, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match self.admit(peer.ip(), total) {
                Some(permit) => {
                    let _ = stream.set_nodelay(true);
                    return (stream, peer, permit);
                }
                None => debug!(%peer, "a connection is closed: its address has too many"),
            }
        }
    }

    /// Admits a connection from an address; `None` if the address is at its limit.
    fn admit(&self, address: IpAddr, total: OwnedSemaphorePermit) -> Option<ConnectionPermit> {
        let shared = &self.0;
        let address = (!(shared.is_exempt)(address.to_canonical())).then(|| client_network(address));
        if let Some(address) = address {
            let mut open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
            let count = open.entry(address).or_default();
            if *count >= shared.per_address {
                return None;
            }
            *count += 1;
        }
        Some(ConnectionPermit { limits: self.clone(), address, _total: total })
    }
}

/// The unit of limits by address: an IPv4 address, or the /64 network of an IPv6 address, which
/// providers assign to one client.
#[must_use]
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Whether a client has closed its connection before it was accepted.
fn is_of_the_client(failure: &io::Error) -> bool {
    let kinds =
        [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionRefused, io::ErrorKind::ConnectionReset];
    kinds.contains(&failure.kind())
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut open = self.limits.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_private(address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(address) if address.is_private())
    }

    fn admit(limits: &ConnectionLimits, address: &str) -> Option<ConnectionPermit> {
        let total = Arc::clone(&limits.0.total).try_acquire_owned().ok()?;
        limits.admit(address.parse().unwrap(), total)
    }

    #[test]
    fn connections_are_bounded_per_address_and_in_total() {
        let limits = ConnectionLimits::new(4, 2, is_private);
        let first = admit(&limits, "192.0.2.1").unwrap();
        let _second = admit(&limits, "::ffff:192.0.2.1").unwrap();
        assert!(admit(&limits, "192.0.2.1").is_none());
        let _other = admit(&limits, "192.0.2.2").unwrap();
        drop(first);
        let _third = admit(&limits, "192.0.2.1").unwrap();
        let last = admit(&limits, "10.1.2.3").unwrap();
        assert_eq!(limits.0.total.available_permits(), 0);
        drop(last);
        assert_eq!(limits.0.total.available_permits(), 1);
    }

    #[test]
    fn proxies_are_exempt_from_the_address_limit() {
        let limits = ConnectionLimits::new(100, 1, is_private);
        let open: Vec<_> = (0..10).map(|_| admit(&limits, "10.1.2.3").unwrap()).collect();
        assert_eq!(open.len(), 10);
        assert!(limits.0.open.lock().unwrap().is_empty());
    }

    #[test]
    fn ipv6_network_counts_as_one_address() {
        let limits = ConnectionLimits::new(100, 1, is_private);
        let first = admit(&limits, "2001:db8:1:2::1").unwrap();
        assert!(admit(&limits, "2001:db8:1:2::2").is_none());
        assert!(admit(&limits, "2001:db8:1:3::2").is_some());
        drop(first);
        assert!(limits.0.open.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn connection_beyond_the_total_waits() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = ConnectionLimits::total(1);
        let _clients =
            [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
        let (_stream, _peer, permit) = limits.accept(&listener).await;
        let second = tokio::time::timeout(Duration::from_millis(50), limits.accept(&listener)).await;
        assert!(second.is_err());
        drop(permit);
        limits.accept(&listener).await;
    }
}
