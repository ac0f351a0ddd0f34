//! Tokens in cookies, as in muse_as_service 1.1, whose clients send no `Authorization`.
//!
//! The cookies are `SameSite=Strict`, so that browsers do not send them with requests of other sites, and `HttpOnly`, so that scripts
//! cannot read them. A login from a page of another site sets no cookies (login CSRF).
//!
//! This is own code: `CookieJar` of axum-extra returns the last cookie of a name, with quotes. This code returns the first one without
//! quotes, as muse_as_service 1.1 does.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::Response,
};
use clap::ValueEnum;
use http::uri::{Authority, Uri};
use muse_verifier::TokenKind;

use crate::middleware::client_address::OverTls;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether tokens may travel in cookies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Cookies {
    /// Cookies are neither set nor read.
    Off,
    /// Cookies are marked `Secure` if the client uses TLS.
    On,
    /// Cookies are always marked `Secure`.
    Secure,
}

/// The name of the cookie for a kind of token.
pub(crate) fn name(kind: TokenKind) -> &'static str {
    match kind {
        TokenKind::Access => "access_token_cookie",
        TokenKind::Refresh => "refresh_token_cookie",
    }
}

/// The value of a cookie of the request; of several with this name the first that is not empty.
pub(crate) fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let values = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(found, value)| *found == name && !value.is_empty())?;
    Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

/// The cookies of a response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Jar {
    /// Whether they are marked `Secure`.
    secure: bool,
    /// Whether cookies may be set.
    enabled: bool,
}

impl Jar {
    pub(crate) fn of(cookies: Cookies, request: &Request) -> Self {
        let over_tls = request.extensions().get::<OverTls>().is_some();
        let of_another_site = match request.headers().get(SEC_FETCH_SITE) {
            Some(site) => site.as_bytes() == b"cross-site",
            // An older browser, or another client.
            None => has_foreign_origin(request, over_tls),
        };
        Self {
            secure: cookies == Cookies::Secure || over_tls,
            enabled: cookies != Cookies::Off && !of_another_site,
        }
    }

    /// Sets the cookie with a token, for the session of the browser.
    pub(crate) fn put(self, response: &mut Response, kind: TokenKind, token: &str) {
        self.set(response, &format!("{}={token}", name(kind)));
    }

    /// Deletes the cookie with a token.
    pub(crate) fn clear(self, response: &mut Response, kind: TokenKind) {
        self.set(response, &format!("{}=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0", name(kind)));
    }

    fn set(self, response: &mut Response, cookie: &str) {
        let secure = if self.secure { "; Secure" } else { "" };
        let value = HeaderValue::try_from(format!("{cookie}; HttpOnly; Path=/; SameSite=Strict{secure}"));
        if let (true, Ok(value)) = (self.enabled, value) {
            response.headers_mut().append(header::SET_COOKIE, value);
        }
    }
}

/// Whether a page of the gateway's own origin has sent the request, or no page at all.
pub(crate) fn is_same_origin(request: &Request) -> bool {
    match request.headers().get(SEC_FETCH_SITE) {
        Some(site) => matches!(site.as_bytes(), b"same-origin" | b"none"),
        None => !has_foreign_origin(request, request.extensions().get::<OverTls>().is_some()),
    }
}

/// Whether the request comes from a page of another origin (RFC 6454). The page may use https and the request not: TLS may end at a
/// proxy.
fn has_foreign_origin(request: &Request, over_tls: bool) -> bool {
    let Some(origin) = request.headers().get(header::ORIGIN) else { return false };
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or(request.uri().authority().map(Authority::as_str));
    let (Some(host), Ok(origin)) = (host, Uri::try_from(origin.as_bytes())) else { return true };
    let default_port = match origin.scheme_str() {
        Some("https") => ":443",
        Some("http") if !over_tls => ":80",
        _ => return true,
    };
    let without_port = |host: &str| host.strip_suffix(default_port).unwrap_or(host).to_ascii_lowercase();
    origin.authority().is_none_or(|page| without_port(page.as_str()) != without_port(host))
}

/// The value of `Authorization` for a token.
pub(crate) fn bearer(token: &str) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    HeaderValue::try_from(format!("Bearer {token}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        for cookies in
            ["a=1; access_token_cookie=x.y.z; b", "refresh_token_cookie=\"r\"; access_token_cookie=w"]
        {
            headers.append(header::COOKIE, cookies.parse().unwrap());
        }
        assert_eq!(value(&headers, "access_token_cookie"), Some("x.y.z"));
        assert_eq!(value(&headers, "refresh_token_cookie"), Some("r"));
        assert_eq!(value(&headers, "token_cookie"), None);
        assert_eq!(value(&HeaderMap::new(), "a"), None);
    }

    fn set(cookies: Cookies, request: http::request::Builder) -> Vec<String> {
        let jar = Jar::of(cookies, &request.body(axum::body::Body::empty()).unwrap());
        let mut response = Response::new(axum::body::Body::empty());
        jar.put(&mut response, TokenKind::Access, "t");
        jar.clear(&mut response, TokenKind::Refresh);
        let values = response.headers().get_all(header::SET_COOKIE);
        values.into_iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn cookies_have_security_attributes() {
        let [put, cleared] = set(Cookies::On, Request::builder()).try_into().unwrap();
        assert_eq!(put, "access_token_cookie=t; HttpOnly; Path=/; SameSite=Strict");
        assert!(
            cleared.starts_with("refresh_token_cookie=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0;")
        );
        for secure in [
            set(Cookies::Secure, Request::builder()),
            set(Cookies::On, Request::builder().extension(OverTls)),
        ] {
            assert!(
                secure.len() == 2 && secure.iter().all(|cookie| cookie.ends_with("; Secure")),
                "{secure:?}"
            );
        }
        assert!(set(Cookies::Off, Request::builder()).is_empty());
        assert!(set(Cookies::On, Request::builder().header(SEC_FETCH_SITE, "cross-site")).is_empty());
    }

    #[test]
    fn login_from_a_foreign_origin_sets_no_cookies() {
        let request =
            |origin: &str| Request::builder().header("host", "muse.org:5000").header("origin", origin);
        for own in ["http://muse.org:5000", "https://muse.org:5000", "http://Muse.org:5000"] {
            assert_eq!(set(Cookies::On, request(own)).len(), 2, "{own}");
        }
        for foreign in [
            "http://evil.org",
            "http://muse.org",
            "http://muse.org:5001",
            "null",
            "",
            "http://a@muse.org:5000",
        ] {
            assert!(set(Cookies::On, request(foreign)).is_empty(), "{foreign}");
        }
        let over_tls = request("http://muse.org:5000").extension(OverTls);
        assert!(set(Cookies::On, over_tls).is_empty());
        // The browser knows better.
        let same = request("http://evil.org").header(SEC_FETCH_SITE, "same-origin");
        assert_eq!(set(Cookies::On, same).len(), 2);
        let default_port =
            Request::builder().header("host", "muse.org").header("origin", "https://muse.org:443");
        assert_eq!(set(Cookies::On, default_port).len(), 2);
        // HTTP/2 names the host in the URI.
        let http2 = Request::builder().uri("http://muse.org/login").header("origin", "http://muse.org");
        assert_eq!(set(Cookies::On, http2).len(), 2);
    }
}
