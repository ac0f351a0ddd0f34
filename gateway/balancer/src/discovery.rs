//! Service discovery: the addresses in the URLs, and names that are resolved periodically.

use std::{
    fmt::Debug,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use muse_server::resolver::SystemResolver;
use tokio::time::sleep;
use tonic::transport::Endpoint;
use tracing::{debug, warn};

use super::{cluster::Cluster, health};

/// The period of resolving names,
const LOOKUP_PERIOD: Duration = Duration::from_secs(2);
/// and the shortest time until the next lookup, if an embedder cannot be reached and may have another address.
const MIN_LOOKUP_PAUSE: Duration = Duration::from_millis(250);

/// Resolves names to addresses.
pub trait Resolver: Debug + Send + Sync + 'static {
    /// All addresses of a host, each with `port`.
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;
}

impl Resolver for SystemResolver {
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let (resolver, host) = (self.clone(), host.to_owned());
        async move {
            let found = resolver.lookup(&host).await?;
            Ok(found.into_iter().map(|address| SocketAddr::new(address, port)).collect())
        }
        .boxed()
    }
}

/// One URL, and its addresses.
#[derive(Debug)]
struct Target {
    endpoint: Endpoint,
    /// The host name and port to resolve; none if the URL contains an address.
    name: Option<(String, u16)>,
    /// The addresses that were last resolved.
    addresses: Vec<SocketAddr>,
    /// Whether the last lookup failed.
    failed: bool,
}

impl Target {
    fn new(endpoint: Endpoint) -> Self {
        let uri = endpoint.uri();
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let (name, addresses) = match host.parse::<IpAddr>() {
            Ok(address) => (None, vec![SocketAddr::new(address, port)]),
            Err(_) => (Some((host.to_owned(), port)), Vec::new()),
        };
        Self { endpoint, name, addresses, failed: false }
    }

    /// Resolves the name. If that fails, the addresses stay: the cause may be an unavailable resolver.
    async fn resolve(&mut self, resolver: &dyn Resolver) {
        let Some((host, port)) = &self.name else { return };
        let found = match resolver.resolve(host, *port).await {
            Ok(found) if !found.is_empty() => Ok(found),
            Ok(_) => Err("the name has no address".to_owned()),
            Err(failure) => Err(failure.to_string()),
        };
        match found {
            Ok(found) => {
                self.addresses = found;
                self.failed = false;
            }
            Err(reason) if self.failed => {
                debug!(host, reason, "the name of an embedder is still not resolved");
            }
            Err(reason) => {
                warn!(host, reason, "the name of an embedder is not resolved");
                self.failed = true;
            }
        }
    }
}

/// Updates the endpoints of the cluster. It returns if no URL contains a name.
pub(super) async fn discover(urls: Vec<Endpoint>, resolver: Box<dyn Resolver>, cluster: Arc<Cluster>) {
    let mut targets: Vec<Target> = urls.into_iter().map(Target::new).collect();
    loop {
        replace(&cluster, &targets);
        if targets.iter().all(|target| target.name.is_none()) {
            return;
        }
        join_all(targets.iter_mut().map(|target| target.resolve(&*resolver))).await;
        replace(&cluster, &targets);
        tokio::select! {
            () = sleep(LOOKUP_PERIOD) => (),
            () = async {
                sleep(MIN_LOOKUP_PAUSE).await;
                cluster.resolve_requested().await;
            } => (),
        }
    }
}

/// Replaces the endpoints of the cluster, and starts the health checks of the new ones.
fn replace(cluster: &Arc<Cluster>, targets: &[Target]) {
    for endpoint in cluster.replace(&resolved(targets)) {
        let removed = endpoint.removed.clone();
        let health_checks = health::watch(endpoint, Arc::clone(cluster));
        tokio::spawn(async move { removed.run_until_cancelled(health_checks).await });
    }
}

fn resolved(targets: &[Target]) -> Vec<(SocketAddr, &Endpoint)> {
    let all =
        targets.iter().flat_map(|target| target.addresses.iter().map(|&address| (address, &target.endpoint)));
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_from_urls_and_names_are_resolved() {
        let target = |url: &'static str| Target::new(Endpoint::from_static(url));
        assert_eq!(target("http://127.0.0.1:5002").addresses, ["127.0.0.1:5002".parse().unwrap()]);
        assert_eq!(target("http://[::1]:5002").addresses, ["[::1]:5002".parse().unwrap()]);
        assert_eq!(target("http://embedder:5002").name, Some(("embedder".to_owned(), 5002)));
        assert_eq!(target("https://embedder").name, Some(("embedder".to_owned(), 443)));
    }

    #[tokio::test]
    async fn failed_lookup_leaves_the_addresses() {
        #[derive(Debug)]
        struct Unavailable;
        impl Resolver for Unavailable {
            fn resolve(&self, _: &str, _: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
                async { Err(io::Error::other("timed out")) }.boxed()
            }
        }
        let mut target = Target::new(Endpoint::from_static("http://localhost:1"));
        target.resolve(&SystemResolver::default()).await;
        let found = target.addresses.clone();
        assert!(found.iter().any(|address| address.ip().is_loopback()), "{found:?}");
        target.resolve(&Unavailable).await;
        assert_eq!(target.addresses, found);
    }
}
