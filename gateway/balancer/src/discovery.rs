//! Service discovery: the addresses in the URLs, and names that are resolved periodically.

use std::{
    fmt::Debug,
    io,
    net::{IpAddr, SocketAddr},
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

use super::Balancer;

/// The period of resolving names,
const LOOK_UP_EVERY: Duration = Duration::from_secs(2);
/// and the shortest time until the next try, if an embedder cannot be reached and may have moved.
const LOOK_UP_AFTER: Duration = Duration::from_millis(250);

/// Turns names into addresses.
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

/// One of the URLs.
#[derive(Debug)]
struct Place {
    target: Endpoint,
    /// What is to be looked up.
    name: Option<(String, u16)>,
    /// As they were last found.
    addresses: Vec<SocketAddr>,
    failed: bool,
}

impl Place {
    fn new(target: Endpoint) -> Self {
        let uri = target.uri();
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let (name, addresses) = match host.parse::<IpAddr>() {
            Ok(address) => (None, vec![SocketAddr::new(address, port)]),
            Err(_) => (Some((host.to_owned(), port)), Vec::new()),
        };
        Self { target, name, addresses, failed: false }
    }

    /// Looks the name up. While that fails, what was found before holds: it may be the resolver that is away.
    async fn look_up(&mut self, resolver: &dyn Resolver) {
        let Some((host, port)) = &self.name else { return };
        let found = match resolver.resolve(host, *port).await {
            Ok(found) if !found.is_empty() => Ok(found),
            Ok(_) => Err("it has no address".to_owned()),
            Err(failure) => Err(failure.to_string()),
        };
        match found {
            Ok(found) => {
                self.addresses = found;
                self.failed = false;
            }
            Err(reason) if self.failed => debug!(host, reason, "an embedder's name is still not found"),
            Err(reason) => {
                warn!(host, reason, "an embedder's name is not found");
                self.failed = true;
            }
        }
    }
}

/// Keeps the balancer those of the URLs, for ever.
pub(super) async fn discover(targets: Vec<Endpoint>, resolver: Box<dyn Resolver>, balancer: Balancer) {
    let mut places: Vec<Place> = targets.into_iter().map(Place::new).collect();
    loop {
        balancer.replace(&wanted(&places));
        if places.iter().all(|place| place.name.is_none()) {
            return;
        }
        join_all(places.iter_mut().map(|place| place.look_up(&*resolver))).await;
        balancer.replace(&wanted(&places));
        tokio::select! {
            () = sleep(LOOK_UP_EVERY) => (),
            () = async {
                sleep(LOOK_UP_AFTER).await;
                balancer.resolve_requested().await;
            } => (),
        }
    }
}

fn wanted(places: &[Place]) -> Vec<(SocketAddr, &Endpoint)> {
    let all = places.iter().flat_map(|place| place.addresses.iter().map(|&found| (found, &place.target)));
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_from_urls_and_names_are_looked_up() {
        let place = |url: &'static str| Place::new(Endpoint::from_static(url));
        assert_eq!(place("http://127.0.0.1:5002").addresses, ["127.0.0.1:5002".parse().unwrap()]);
        assert_eq!(place("http://[::1]:5002").addresses, ["[::1]:5002".parse().unwrap()]);
        assert_eq!(place("http://embedder:5002").name, Some(("embedder".to_owned(), 5002)));
        assert_eq!(place("https://embedder").name, Some(("embedder".to_owned(), 443)));
    }

    #[tokio::test]
    async fn what_is_not_found_is_where_it_was() {
        #[derive(Debug)]
        struct Unavailable;
        impl Resolver for Unavailable {
            fn resolve(&self, _: &str, _: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
                async { Err(io::Error::other("no answer")) }.boxed()
            }
        }
        let mut place = Place::new(Endpoint::from_static("http://localhost:1"));
        place.look_up(&SystemResolver::default()).await;
        let found = place.addresses.clone();
        assert!(found.iter().any(|address| address.ip().is_loopback()), "{found:?}");
        place.look_up(&Unavailable).await;
        assert_eq!(place.addresses, found);
    }
}
