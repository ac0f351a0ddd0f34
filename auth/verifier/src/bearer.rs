//! Parses the bearer token of an `Authorization` header, by the rules of the service that this one
//! replaces.
//!
//! White space around the value and between its words is ignored. The value may be a list of
//! credentials, separated by commas, of which one is a bearer token. The scheme is case-insensitive
//! (RFC 9110), unlike in the old service.

use std::borrow::Cow;

use http::{HeaderMap, header::AUTHORIZATION};
use muse_proto::{Error, Reason};

const SCHEME: &[u8] = b"Bearer ";
const MISSING: &str = "Missing Authorization Header";
const WRONG_SCHEME: &str =
    "Missing 'Bearer' type in 'Authorization' header. Expected 'Authorization: Bearer <JWT>'";
const MALFORMED: &str = "Bad Authorization header. Expected 'Authorization: Bearer <JWT>'";

/// The value of the `Authorization` header; the values of several headers are joined by commas.
#[must_use]
pub fn authorization(headers: &HeaderMap) -> Option<Cow<'_, [u8]>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let first = values.next()?.as_bytes();
    let Some(second) = values.next() else { return Some(Cow::Borrowed(first)) };
    let mut joined = [first, second.as_bytes()].join(&b',');
    for value in values {
        joined.push(b',');
        joined.extend_from_slice(value.as_bytes());
    }
    Some(Cow::Owned(joined))
}

/// The token in the value of an `Authorization` header.
///
/// # Errors
///
/// [`Reason::TokenMissing`] (401) if there is no value or no bearer token in it,
/// [`Reason::TokenMalformed`] (422) if it is not exactly `Bearer <token>`.
pub fn token(value: Option<&[u8]>) -> Result<&str, Error> {
    let value = value.unwrap_or_default().trim_ascii();
    if value.is_empty() {
        return Err(Error::new(Reason::TokenMissing, MISSING));
    }
    if let Some(token) = simple_token(value) {
        return Ok(token);
    }
    let mut bearer = None;
    for credentials in value.split(|&byte| byte == b',') {
        let mut words = words(credentials);
        // An empty entry of the list.
        let Some(scheme) = words.next() else { return Err(malformed()) };
        if scheme.eq_ignore_ascii_case(b"bearer") && bearer.replace(words).is_some() {
            return Err(Error::new(Reason::TokenMissing, WRONG_SCHEME));
        }
    }
    let mut words = bearer.ok_or_else(|| Error::new(Reason::TokenMissing, WRONG_SCHEME))?;
    let (Some(token), None) = (words.next(), words.next()) else { return Err(malformed()) };
    std::str::from_utf8(token).map_err(|_| malformed())
}

/// The fast path for the usual form: the scheme, a space, and ASCII without spaces and commas. The
/// check has no branches, so that the compiler vectorises it.
fn simple_token(value: &[u8]) -> Option<&str> {
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    let is_plain = |all, &byte: &u8| all & (byte > b' ') & (byte < 0x7f) & (byte != b',');
    let is_simple =
        scheme.eq_ignore_ascii_case(SCHEME) && !token.is_empty() && token.iter().fold(true, is_plain);
    is_simple.then(|| std::str::from_utf8(token).ok())?
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

fn malformed() -> Error {
    Error::new(Reason::TokenMalformed, MALFORMED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejection(value: &[u8]) -> (u16, String) {
        let error = token(Some(value)).unwrap_err();
        (error.reason().http_status(), error.message().to_owned())
    }

    #[test]
    fn bearer_token_is_found() {
        for value in [
            "Bearer a.b.c",
            "bearer a.b.c",
            "BEARER a.b.c",
            " Bearer a.b.c",
            "Bearer a.b.c \t",
            "Bearer\ta.b.c",
            "Bearer \t  a.b.c",
            "Basic YTpi, Bearer a.b.c",
            "Bearer a.b.c,Basic YTpi",
        ] {
            assert_eq!(token(Some(value.as_bytes())), Ok("a.b.c"), "{value:?}");
        }
    }

    #[test]
    fn missing_or_empty_header_is_401() {
        for value in [None, Some(&b""[..]), Some(b"  \t ")] {
            let error = token(value).unwrap_err();
            assert_eq!((error.reason().http_status(), error.message()), (401, MISSING));
        }
    }

    #[test]
    fn other_scheme_is_401() {
        for value in
            ["garbage", "a.b.c", "JWT a.b.c", "Bearer:a.b.c", "Basic YTpi", "Bearer a, Bearer b", "é a"]
        {
            assert_eq!(rejection(value.as_bytes()), (401, WRONG_SCHEME.to_owned()), "{value:?}");
        }
        assert_eq!(rejection(b"\xff\xfe"), (401, WRONG_SCHEME.to_owned()));
    }

    #[test]
    fn scheme_without_exactly_one_token_is_422() {
        for value in ["Bearer", "Bearer ", "Bearer x y", "Bearer a.b.c extra", ", Bearer a", "Bearer a,", ","]
        {
            assert_eq!(rejection(value.as_bytes()), (422, MALFORMED.to_owned()), "{value:?}");
        }
        assert_eq!(rejection(b"Bearer \xff\xfe"), (422, MALFORMED.to_owned()));
    }

    #[test]
    fn several_headers_are_one_list() {
        let mut headers = HeaderMap::new();
        assert_eq!(authorization(&headers), None);
        for value in ["Basic x", "Bearer t", "Digest y"] {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        assert_eq!(token(authorization(&headers).as_deref()), Ok("t"));
    }
}
