//! Loopback addresses and hosts.

use std::net::IpAddr;

use http::Uri;

/// Whether an address is a loopback address.
#[must_use]
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Whether a host, which is a name or an address, is a loopback host.
#[must_use]
pub fn is_loopback_host(host: &str) -> bool {
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    // RFC 6761, section 6.3.
    host.eq_ignore_ascii_case("localhost") || literal.parse().is_ok_and(is_loopback)
}

/// Whether the host of a URL is a loopback host.
pub(crate) fn is_loopback_url(url: &Uri) -> bool {
    url.host().is_some_and(is_loopback_host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts_are_recognised_in_each_notation() {
        for host in ["127.0.0.1", "127.8.8.8", "[::1]", "[::ffff:127.0.0.1]", "localhost", "LocalHost"] {
            let url = format!("http://{host}:1").parse().unwrap();
            assert!(is_loopback_url(&url), "{host}");
        }
        for host in ["10.0.0.1", "[::]", "0.0.0.0", "[::ffff:10.0.0.1]", "auth", "localhost.example"] {
            let url = format!("http://{host}:1").parse().unwrap();
            assert!(!is_loopback_url(&url), "{host}");
        }
    }
}
