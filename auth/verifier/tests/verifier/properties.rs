//! Properties of headers and tokens.

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use muse_proto::Reason;
use muse_verifier::{Credential, TokenKind, Verifier, bearer};
use proptest::prelude::*;

use crate::signing::{claims, header, signed, verifier};

/// Bytes that look like a credential more often than random ones.
fn nearly_a_header() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just(b"Bearer".to_vec()),
        Just(b"bEARER".to_vec()),
        Just(b"Basic".to_vec()),
        Just(b" ".to_vec()),
        Just(b"\t".to_vec()),
        Just(b",".to_vec()),
        Just(b"a.b.c".to_vec()),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

fn in_any_case(word: &'static str) -> impl Strategy<Value = String> {
    prop::collection::vec(any::<bool>(), word.len()).prop_map(move |upper| {
        let cased = |(letter, upper): (char, bool)| {
            if upper { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() }
        };
        word.chars().zip(upper).map(cased).collect()
    })
}

/// A valid token, and the same with one byte changed, inserted or removed.
fn mutated() -> impl Strategy<Value = (String, String)> {
    let good = signed(&header(), &claims());
    (0..=good.len(), any::<u8>(), 0..3).prop_map(move |(place, byte, what)| {
        let mut bytes = good.clone().into_bytes();
        match what {
            0 => bytes.insert(place, byte),
            1 => bytes[place % good.len()] ^= byte,
            _ => drop(bytes.remove(place % good.len())),
        }
        (good.clone(), String::from_utf8_lossy(&bytes).into_owned())
    })
}

/// Whether a token is invalid for each kind.
fn is_invalid(verifier: &Verifier, token: &str) -> bool {
    [None, Some(TokenKind::Access), Some(TokenKind::Refresh)].into_iter().all(|kind| {
        verifier.verify(token, kind).is_err_and(|rejected| rejected.reason() == Reason::TokenInvalid)
    })
}

/// Whether an entry of the list is the scheme and this token.
fn is_bearer_of(entry: &[u8], token: &str) -> bool {
    let words = entry.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let words: Vec<&[u8]> = words.collect();
    matches!(words[..], [scheme, word] if scheme.eq_ignore_ascii_case(b"bearer") && word == token.as_bytes())
}

proptest! {
    #[test]
    fn parsed_token_is_one_word_after_its_scheme(value in nearly_a_header()) {
        match bearer::token(Some(&value)) {
            Ok(token) => {
                prop_assert!(!token.is_empty());
                prop_assert!(!token.contains([' ', '\t', '\n', '\r', '\x0c', ',']), "{token:?}");
                prop_assert!(value.split(|&byte| byte == b',').any(|part| is_bearer_of(part, token)), "{token:?}");
            }
            Err(rejected) => {
                prop_assert!(matches!(rejected.reason(), Reason::TokenMissing | Reason::TokenMalformed));
            }
        }
    }

    #[test]
    fn token_is_parsed_in_every_valid_form(
        token in "[!-+\\--~]{1,80}",
        scheme in in_any_case("bearer"),
        spaces in ("[ \t]{0,3}", "[ \t]{1,3}", "[ \t]{0,3}"),
        others in (prop::option::of("Basic [a-z]{1,8}"), prop::option::of("Digest [a-z]{1,8}")),
    ) {
        let ours = format!("{}{scheme}{}{token}{}", spaces.0, spaces.1, spaces.2);
        let list: Vec<String> = others.0.into_iter().chain([ours]).chain(others.1).collect();
        let joined = list.join(",");
        prop_assert_eq!(bearer::token(Some(joined.as_bytes())), Ok(token.as_str()));

        // A list in one header, or several headers.
        let mut headers = HeaderMap::new();
        for value in &list {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        let value = bearer::authorization(&headers);
        prop_assert_eq!(bearer::token(value.as_deref()), Ok(token.as_str()));
    }

    #[test]
    fn several_headers_are_one_list(values in prop::collection::vec("[ -~\t\u{80}-\u{ff}]{0,12}", 0..5)) {
        let mut headers = HeaderMap::new();
        for value in &values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let expected = (!values.is_empty()).then(|| values.join(",").into_bytes());
        prop_assert_eq!(bearer::authorization(&headers).map(std::borrow::Cow::into_owned), expected);
    }

    #[test]
    fn arbitrary_text_is_invalid(text in any::<String>()) {
        prop_assert!(is_invalid(&verifier(), &text));
    }

    #[test]
    fn arbitrary_jwt_is_invalid(text in "[A-Za-z0-9_=-]{0,200}\\.[A-Za-z0-9_=-]{0,200}\\.[A-Za-z0-9_=-]{0,100}") {
        prop_assert!(is_invalid(&verifier(), &text));
    }

    #[test]
    fn changed_token_is_invalid((good, changed) in mutated()) {
        let verifier = verifier();
        // The valid token is cached, so that the test covers the cache.
        prop_assert!(verifier.verify(&good, None).is_ok());
        prop_assert!(changed == good || is_invalid(&verifier, &changed), "{changed}");
    }

    #[test]
    fn arbitrary_header_is_rejected(value in nearly_a_header()) {
        prop_assert!(verifier().authenticate_value(Some(&value), Credential::AnyToken).is_err());
    }
}
