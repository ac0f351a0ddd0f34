//! How many connections are open on the public port: in total, and from one address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::middleware::client_address::{TrustedProxies, limited_network};

/// Limits on open connections. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionLimits(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: Arc<Semaphore>,
    per_address: usize,
    /// Proxies carry the connections of many clients.
    exempt: TrustedProxies,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// An open connection, which counts until this is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    limits: ConnectionLimits,
    address: Option<IpAddr>,
    _total: OwnedSemaphorePermit,
}

impl ConnectionLimits {
    /// At most `total` connections, and `per_address` from one address that is not one of `exempt`.
    pub(crate) fn new(total: usize, per_address: usize, exempt: TrustedProxies) -> Self {
        let total = Arc::new(Semaphore::new(total.min(Semaphore::MAX_PERMITS)));
        Self(Arc::new(Shared { total, per_address, exempt, open: Mutex::default() }))
    }

    /// Waits until one more connection may be accepted.
    pub(crate) async fn wait(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.total).acquire_owned().await.ok()
    }

    /// Admits a connection from an address; `None` if that has too many.
    pub(crate) fn admit(&self, address: IpAddr, total: OwnedSemaphorePermit) -> Option<ConnectionPermit> {
        let shared = &self.0;
        let address = (!shared.exempt.contain(address.to_canonical())).then(|| limited_network(address));
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
    use futures::FutureExt;

    use super::*;

    async fn admit(limits: &ConnectionLimits, address: &str) -> Option<ConnectionPermit> {
        let permit = limits.wait().await.unwrap();
        limits.admit(address.parse().unwrap(), permit)
    }

    #[tokio::test]
    async fn connections_are_bounded_per_address_and_in_total() {
        let limits = ConnectionLimits::new(4, 2, "10.0.0.0/8".parse().unwrap());
        let first = admit(&limits, "192.0.2.1").await.unwrap();
        let _second = admit(&limits, "::ffff:192.0.2.1").await.unwrap();
        assert!(admit(&limits, "192.0.2.1").await.is_none());
        let _other = admit(&limits, "192.0.2.2").await.unwrap();
        drop(first);
        let _third = admit(&limits, "192.0.2.1").await.unwrap();
        let last = admit(&limits, "10.1.2.3").await.unwrap();
        assert!(limits.wait().now_or_never().is_none());
        drop(last);
        assert!(limits.wait().now_or_never().is_some());
    }

    #[tokio::test]
    async fn proxies_are_exempt_from_the_address_limit() {
        let limits = ConnectionLimits::new(100, 1, "10.0.0.0/8".parse().unwrap());
        let mut open = Vec::new();
        for _ in 0..10 {
            open.push(admit(&limits, "10.1.2.3").await.unwrap());
        }
        assert!(limits.0.open.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn ipv6_network_counts_as_one_address() {
        let limits = ConnectionLimits::new(100, 1, "".parse().unwrap());
        let first = admit(&limits, "2001:db8:1:2::1").await.unwrap();
        assert!(admit(&limits, "2001:db8:1:2::2").await.is_none());
        assert!(admit(&limits, "2001:db8:1:3::2").await.is_some());
        drop(first);
        assert!(limits.0.open.lock().unwrap().is_empty());
    }
}
