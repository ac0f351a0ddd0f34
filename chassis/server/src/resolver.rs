//! Resolves host names with the operating system's resolver: DNS, `/etc/hosts` and so on.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
    vec,
};

use futures::{FutureExt, future::BoxFuture};
use hyper_util::client::legacy::connect::dns::Name;
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};
use tower::Service;

/// Timeout of a lookup.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Concurrent lookups of one name.
const LOOKUPS_PER_NAME: usize = 2;

/// The operating system's resolver.
///
/// `getaddrinfo` blocks a thread, for a minute or more if no DNS server answers, and cannot be
/// cancelled. So lookups run on the threads for blocking calls, and the threads that one name may
/// occupy are bounded: further lookups of the name wait. Lookups of other names continue. Clones of
/// a resolver share the bound.
#[derive(Debug, Clone, Default)]
pub struct SystemResolver {
    /// By name. The names come from the configuration, so they are few.
    lookups: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
}

impl SystemResolver {
    /// All addresses of a host.
    ///
    /// # Errors
    ///
    /// Those of the operating system; [`io::ErrorKind::TimedOut`] after 5 seconds.
    pub async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let name = host.to_owned();
        self.bounded(host, move || {
            let found = (name.as_str(), 0).to_socket_addrs()?;
            Ok(found.map(|address| address.ip()).collect())
        })
        .await
    }

    async fn bounded(
        &self,
        host: &str,
        blocking: impl FnOnce() -> io::Result<Vec<IpAddr>> + Send + 'static,
    ) -> io::Result<Vec<IpAddr>> {
        let slots = self.slots(host);
        let lookup = async {
            let slot = slots.acquire_owned().await.map_err(io::Error::other)?;
            spawn_blocking(move || {
                // Occupied until the thread is free, not only until the caller gives up.
                let _slot = slot;
                blocking()
            })
            .await?
        };
        let timed_out = |_| io::Error::new(io::ErrorKind::TimedOut, "the DNS lookup timed out");
        timeout(TIMEOUT, lookup).await.map_err(timed_out)?
    }

    fn slots(&self, host: &str) -> Arc<Semaphore> {
        let mut lookups = self.lookups.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Semaphore::new(LOOKUPS_PER_NAME));
        Arc::clone(lookups.entry(host.to_owned()).or_insert_with(new))
    }
}

/// For hyper's connector, which sets the port.
impl Service<Name> for SystemResolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolver = self.clone();
        async move {
            let found = resolver.lookup(name.as_str()).await?;
            let addresses: Vec<_> = found.into_iter().map(|address| SocketAddr::new(address, 0)).collect();
            Ok(addresses.into_iter())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        time::Instant,
    };

    use super::*;

    #[tokio::test]
    async fn localhost_resolves_to_loopback() {
        let found = SystemResolver::default().lookup("localhost").await.unwrap();
        assert!(!found.is_empty() && found.iter().all(IpAddr::is_loopback), "{found:?}");
        assert!(SystemResolver::default().lookup("name.invalid").await.is_err());
    }

    /// Simulates a DNS server that does not answer within the timeout.
    #[tokio::test]
    async fn hanging_lookups_occupy_few_threads_and_time_out() {
        let resolver = SystemResolver::default();
        let blocked = Arc::new(AtomicUsize::new(0));
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(Mutex::new(released));
        let started = Instant::now();
        let lookups = (0..50).map(|_| {
            let (resolver, blocked, released) =
                (resolver.clone(), Arc::clone(&blocked), Arc::clone(&released));
            tokio::spawn(async move {
                let hang = move || {
                    blocked.fetch_add(1, Ordering::Relaxed);
                    let _ = released.lock().unwrap().recv();
                    Ok(Vec::new())
                };
                resolver.bounded("hanging", hang).await
            })
        });
        let lookups: Vec<_> = lookups.collect();
        // Another name is resolved in the meantime.
        assert!(resolver.lookup("localhost").await.is_ok());
        assert!(started.elapsed() < TIMEOUT);
        for lookup in lookups {
            assert_eq!(lookup.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        assert_eq!(blocked.load(Ordering::Relaxed), LOOKUPS_PER_NAME);
        // The threads end, and the name can be resolved again.
        drop(release);
        assert!(resolver.bounded("hanging", || Ok(Vec::new())).await.is_ok());
    }
}
