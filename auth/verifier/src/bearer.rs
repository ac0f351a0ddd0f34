//! Finds the token in an `Authorization` header, by the rules of the service that this one replaces.
//!
//! White space around the value and between its words is free. The value may list several credentials with commas
//! between them, one of which is ours. The scheme is matched in any case, as RFC 9110 has it, though the old service
//! insisted on `Bearer`.

use std::borrow::Cow;

use http::{HeaderMap, header::AUTHORIZATION};
use muse_proto::{Error, Reason};

const SCHEME: &[u8] = b"Bearer ";
const MISSING: &str = "Missing Authorization Header";
const WRONG_SCHEME: &str =
    "Missing 'Bearer' type in 'Authorization' header. Expected 'Authorization: Bearer <JWT>'";
const BAD_FORM: &str = "Bad Authorization header. Expected 'Authorization: Bearer <JWT>'";

/// The value of the `Authorization` header; several such headers are one with commas between their values.
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
/// [`Reason::TokenMissing`] (401) if there is no value or it names no Bearer token, [`Reason::TokenMalformed`] (422)
/// if it is not exactly `Bearer <token>`.
pub fn token(value: Option<&[u8]>) -> Result<&str, Error> {
    let value = value.unwrap_or_default().trim_ascii();
    if value.is_empty() {
        return Err(Error::new(Reason::TokenMissing, MISSING));
    }
    if let Some(token) = only_token(value) {
        return Ok(token);
    }
    let mut ours = None;
    for credentials in value.split(|&byte| byte == b',') {
        let mut words = words(credentials);
        // An empty place in the list.
        let Some(scheme) = words.next() else { return Err(bad_form()) };
        if scheme.eq_ignore_ascii_case(b"bearer") && ours.replace(words).is_some() {
            return Err(Error::new(Reason::TokenMissing, WRONG_SCHEME));
        }
    }
    let mut words = ours.ok_or_else(|| Error::new(Reason::TokenMissing, WRONG_SCHEME))?;
    let (Some(token), None) = (words.next(), words.next()) else { return Err(bad_form()) };
    std::str::from_utf8(token).map_err(|_| bad_form())
}

/// The token, if the value is in the form that nearly all clients send: the scheme, a space, and ASCII without spaces or commas.
/// Checked without branches, which the compiler vectorizes.
fn only_token(value: &[u8]) -> Option<&str> {
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    let is_plain = |all, &byte: &u8| all & (byte > b' ') & (byte < 0x7f) & (byte != b',');
    let is_only =
        scheme.eq_ignore_ascii_case(SCHEME) && !token.is_empty() && token.iter().fold(true, is_plain);
    is_only.then(|| std::str::from_utf8(token).ok())?
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

fn bad_form() -> Error {
    Error::new(Reason::TokenMalformed, BAD_FORM)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(value: &[u8]) -> (u16, String) {
        let error = token(Some(value)).unwrap_err();
        (error.reason().http_status(), error.message().to_owned())
    }

    #[test]
    fn a_token_is_found() {
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
    fn no_header_and_an_empty_one_are_missing() {
        for value in [None, Some(&b""[..]), Some(b"  \t ")] {
            let error = token(value).unwrap_err();
            assert_eq!((error.reason().http_status(), error.message()), (401, MISSING));
        }
    }

    #[test]
    fn another_scheme_is_401() {
        for value in
            ["garbage", "a.b.c", "JWT a.b.c", "Bearer:a.b.c", "Basic YTpi", "Bearer a, Bearer b", "é a"]
        {
            assert_eq!(refused(value.as_bytes()), (401, WRONG_SCHEME.to_owned()), "{value:?}");
        }
        assert_eq!(refused(b"\xff\xfe"), (401, WRONG_SCHEME.to_owned()));
    }

    #[test]
    fn not_exactly_one_token_is_422() {
        for value in ["Bearer", "Bearer ", "Bearer x y", "Bearer a.b.c extra", ", Bearer a", "Bearer a,", ","]
        {
            assert_eq!(refused(value.as_bytes()), (422, BAD_FORM.to_owned()), "{value:?}");
        }
        assert_eq!(refused(b"Bearer \xff\xfe"), (422, BAD_FORM.to_owned()));
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
