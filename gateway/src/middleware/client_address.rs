//! The address of the client, and whether it uses TLS. The auth service throttles logins by the address, and logs it.
//!
//! The gateway forwards the address in `X-Forwarded-For`, which contains that one address and nothing that the client can choose.
//!
//! This is own code: axum-client-ip does not support trusted networks.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue},
    response::Response,
};
use ipnet::IpNet;
use muse_server::client_network;

use crate::middleware::{Around, Rejection};

/// The proxies whose X-Forwarded-For is trusted.
#[derive(Debug, Clone)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl FromStr for TrustedProxies {
    type Err = String;

    /// Parses addresses and networks, separated by commas. An empty list is valid.
    fn from_str(text: &str) -> Result<Self, String> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries.map(network).collect::<Result<_, _>>().map(Self)
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(|address| address.to_canonical().into());
    text.parse().or(address).map_err(|_| format!("'{text}' is neither an address nor a network"))
}

impl TrustedProxies {
    /// The peer, or, if that is a trusted proxy, the last forwarded address that is not a trusted proxy's.
    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let values = headers.get_all(X_FORWARDED_FOR).into_iter().rev();
        for entry in values.flat_map(|value| value.as_bytes().rsplit(|&byte| byte == b',')) {
            if !self.contain(client) {
                break;
            }
            // An entry before a malformed one is not trusted.
            let Some(before) = address(entry) else { break };
            client = before;
        }
        client
    }

    /// Whether the address is that of a trusted proxy.
    pub(crate) fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// Parses an address as proxies write it, some of them with a port.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(entry).ok()?.trim();
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip());
    text.parse::<IpAddr>().or_else(|_| with_port()).ok().map(|address| address.to_canonical())
}

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Request extension: the client uses TLS, to the gateway or, as that reports, to a trusted proxy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OverTls;

/// Request extension: the peer of the connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Replaces `X-Forwarded-For` by the client's address, and sets or removes [`OverTls`].
#[derive(Debug, Clone)]
pub(crate) struct ClientAddress(pub(crate) TrustedProxies);

impl Around for ClientAddress {
    type Context = ();

    fn before(&self, request: &mut Request) -> Result<(), Rejection> {
        // The server inserts it for each connection.
        if let Some(&Peer(peer)) = request.extensions().get() {
            set_client(&self.0, peer, request);
        }
        Ok(())
    }

    fn after((): (), response: Response) -> Response {
        response
    }
}

fn set_client(trusted: &TrustedProxies, peer: SocketAddr, request: &mut Request) {
    let client = trusted.client(peer.ip(), request.headers());
    match is_https(request.headers()).filter(|_| trusted.contain(peer.ip().to_canonical())) {
        Some(true) => {
            request.extensions_mut().insert(OverTls);
        }
        Some(false) => {
            request.extensions_mut().remove::<OverTls>();
        }
        None => (),
    }
    request.headers_mut().remove(X_FORWARDED_FOR);
    // An address is always a valid header value.
    if let Ok(value) = HeaderValue::try_from(client.to_string()) {
        request.headers_mut().insert(X_FORWARDED_FOR, value);
    }
}

/// The client, by whose address or IPv6 network its requests and memory are limited.
pub(crate) fn client_of(headers: &HeaderMap) -> String {
    address_of(headers).map(|address| client_network(address).to_string()).unwrap_or_default()
}

/// The client's address, as [`ClientAddress`] set it.
pub(crate) fn address_of(headers: &HeaderMap) -> Option<IpAddr> {
    headers.get(X_FORWARDED_FOR)?.to_str().ok()?.parse().ok()
}

/// Whether the client used TLS to the first proxy, if a proxy reports it.
fn is_https(headers: &HeaderMap) -> Option<bool> {
    let scheme = headers.get(X_FORWARDED_PROTO)?.as_bytes().split(|&byte| byte == b',').next()?;
    Some(scheme.trim_ascii().eq_ignore_ascii_case(b"https"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(trusted: &str, peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(X_FORWARDED_FOR, value.parse().unwrap());
        }
        let trusted: TrustedProxies = trusted.parse().unwrap();
        trusted.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn forwarded_address_of_untrusted_peer_is_ignored() {
        for trusted in ["", "10.0.0.0/8"] {
            assert_eq!(client(trusted, "192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        }
    }

    #[test]
    fn client_is_the_last_untrusted_address() {
        let trusted = " 10.0.0.0/8, 2001:db8::/32 ,";
        for (forwarded, expected) in [
            (&["198.51.100.7"][..], "198.51.100.7"),
            (&["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
            (&["203.0.113.9, 198.51.100.7, 10.2.3.4"], "198.51.100.7"),
            (&["203.0.113.9", "198.51.100.7 ,10.2.3.4", "2001:db8::5"], "198.51.100.7"),
            (&["198.51.100.7:4711"], "198.51.100.7"),
            (&["[2001:db9::7]:4711"], "2001:db9::7"),
            (&["::ffff:198.51.100.7"], "198.51.100.7"),
            // All are proxies: the farthest one.
            (&["10.0.0.9, 10.0.0.8"], "10.0.0.9"),
            // Malformed: the nearest valid one.
            (&["198.51.100.7, unknown, 10.0.0.8"], "10.0.0.8"),
            (&["198.51.100.7,"], "10.0.0.1"),
            (&[""], "10.0.0.1"),
            (&[], "10.0.0.1"),
        ] {
            assert_eq!(client(trusted, "10.0.0.1", forwarded), expected, "{forwarded:?}");
        }
        assert_eq!(client(trusted, "::ffff:10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("::ffff:10.0.0.1", "10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
    }

    #[test]
    fn invalid_network_is_reported() {
        for text in ["localhost", "10.0.0.0/33", "10.0.0.1 10.0.0.2", "10.0.0.1,x"] {
            let error = text.parse::<TrustedProxies>().unwrap_err();
            assert!(error.contains("is neither an address nor a network"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn untrusted_peer_is_the_client_for_any_header(
            values in prop::collection::vec(prop::collection::vec(0x20..=0xff_u8, 0..40), 0..4),
        ) {
            let mut headers = HeaderMap::new();
            for value in values.iter().filter_map(|value| HeaderValue::from_bytes(value).ok()) {
                headers.append(X_FORWARDED_FOR, value);
            }
            let (direct, proxy) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([10, 0, 0, 1]));
            let trusted: TrustedProxies = "10.0.0.0/8".parse().unwrap();
            prop_assert_eq!(trusted.client(direct, &headers), direct);
            trusted.client(proxy, &headers);
        }

        #[test]
        fn forged_addresses_do_not_change_the_client(
            forged in "[0-9a-f:., x\\[\\]]{0,40}",
            client in any::<[u8; 4]>().prop_map(IpAddr::from),
            proxies in prop::collection::vec(any::<[u8; 3]>(), 0..4),
        ) {
            let trusted: TrustedProxies = "10.0.0.0/8".parse().unwrap();
            prop_assume!(!trusted.contain(client));
            // Each proxy adds where the request came from.
            let mut header = format!("{forged},{client}");
            for [a, b, c] in proxies {
                header.push_str(&format!(", 10.{a}.{b}.{c}"));
            }
            let headers = HeaderMap::from_iter([(X_FORWARDED_FOR, header.parse().unwrap())]);
            prop_assert_eq!(trusted.client([10, 0, 0, 1].into(), &headers), client);
        }
    }
}
