//! The checks of a token and their order.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use muse_proto::{Reason, v1::JsonWebKey};
use muse_verifier::{NBF_LEEWAY_SECONDS, TokenKind, Verifier};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::signing::{KID, claims, claims_with, header, jwk, key, message, now, signed, verifier};

fn rejection(token: &str, kind: Option<TokenKind>) -> (Reason, String) {
    let error = verifier().verify(token, kind).unwrap_err();
    (error.reason(), error.message().to_owned())
}

#[test]
fn valid_token_returns_its_claims() {
    let found = verifier().verify(&signed(&header(), &claims()), Some(TokenKind::Access)).unwrap();
    assert_eq!((found.sub.as_str(), found.jti.as_str(), found.kind), ("admin", "id", TokenKind::Access));
    assert!(found.fresh);
}

#[test]
fn garbage_is_invalid() {
    let good = signed(&header(), &claims());
    let mut cases =
        vec![String::new(), "garbage".into(), "a.b".into(), "a.b.c".into(), "..".into(), "a.b.c.d".into()];
    cases.extend([
        format!("{good}.x"),
        format!("{good}="),
        good[..good.len() - 2].to_owned(),
        good.replace('.', ""),
    ]);
    cases.push("é.é.é".to_owned());
    for token in cases {
        assert_eq!(rejection(&token, None).0, Reason::TokenInvalid, "{token:?}");
    }
}

#[test]
fn token_with_a_changed_character_is_invalid() {
    let good = signed(&header(), &claims());
    for place in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert_eq!(rejection(&changed, None).0, Reason::TokenInvalid, "{changed:?}");
    }
}

#[test]
fn unused_bits_of_a_signature_must_be_zero() {
    let good = signed(&header(), &claims());
    let (rest, last) = good.split_at(good.len() - 1);
    for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".chars() {
        if !last.starts_with(other) {
            let expected = (Reason::TokenInvalid, "Signature verification failed".to_owned());
            assert_eq!(rejection(&format!("{rest}{other}"), None), expected);
        }
    }
}

#[test]
fn other_algorithm_is_invalid() {
    for alg in ["none", "None", "HS256", "ES256", "RS256"] {
        let header = json!({"alg": alg, "typ": "JWT", "kid": KID});
        assert_eq!(rejection(&signed(&header, &claims()), None).0, Reason::TokenInvalid, "{alg}");
        assert_eq!(
            rejection(&format!("{}.", message(&header, &claims())), None).0,
            Reason::TokenInvalid,
            "{alg}"
        );
    }
}

/// HMAC (RFC 2104) with a key that is shorter than a block.
fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let pad = |with: u8| (0..64).map(|at| key.get(at).unwrap_or(&0) ^ with).collect::<Vec<u8>>();
    let inner = Sha256::digest([&pad(0x36), message].concat());
    Sha256::digest([&pad(0x5c), &inner[..]].concat()).to_vec()
}

#[test]
fn hs256_with_the_public_key_is_invalid() {
    let header = json!({"alg": "HS256", "typ": "JWT", "kid": KID});
    let message = message(&header, &claims());
    let jwk = jwk(&key(), KID);
    let bytes = key().verifying_key().to_bytes();
    for secret in [&bytes[..], jwk.x.as_bytes()] {
        let signature = URL_SAFE_NO_PAD.encode(hmac_sha256(secret, message.as_bytes()));
        let expected = (Reason::TokenInvalid, "The specified alg value is not allowed".to_owned());
        assert_eq!(rejection(&format!("{message}.{signature}"), None), expected);
    }
}

#[test]
fn unknown_or_missing_key_id_is_invalid() {
    for header in
        [json!({"alg": "EdDSA"}), json!({"alg": "EdDSA", "kid": "x"}), json!({"alg": "EdDSA", "kid": 1})]
    {
        assert_eq!(rejection(&signed(&header, &claims()), None).0, Reason::TokenInvalid, "{header}");
    }
}

#[test]
fn critical_extension_is_invalid() {
    let header = json!({"alg": "EdDSA", "kid": KID, "crit": ["b64"], "b64": false});
    assert_eq!(rejection(&signed(&header, &claims()), None).0, Reason::TokenInvalid);
}

#[test]
fn missing_or_malformed_claim_is_invalid() {
    for name in ["jti", "sub", "exp", "type"] {
        assert_eq!(
            rejection(&signed(&header(), &claims_with(name, Value::Null)), None).0,
            Reason::TokenInvalid,
            "{name}"
        );
        assert_eq!(
            rejection(&signed(&header(), &claims_with(name, json!([1]))), None).0,
            Reason::TokenInvalid,
            "{name}"
        );
    }
    assert_eq!(
        rejection(&signed(&header(), &claims_with("exp", json!("9999999999"))), None).0,
        Reason::TokenInvalid
    );
    assert_eq!(
        rejection(&signed(&header(), &claims_with("type", json!("root"))), None).0,
        Reason::TokenInvalid
    );
    assert_eq!(rejection(&signed(&header(), &json!("text")), None).0, Reason::TokenInvalid);
    for (name, value) in [("jti", json!("")), ("sub", json!("")), ("gen", json!("1")), ("fam", json!(1))] {
        assert_eq!(
            rejection(&signed(&header(), &claims_with(name, value)), None).0,
            Reason::TokenInvalid,
            "{name}"
        );
    }
}

#[test]
fn expired_or_early_token_is_rejected() {
    let expired = (Reason::TokenExpired, "Token has expired".to_owned());
    for exp in [0, -5, now() - 1, now()] {
        assert_eq!(rejection(&signed(&header(), &claims_with("exp", json!(exp))), None), expired, "{exp}");
    }
    let early = claims_with("nbf", json!(now() + NBF_LEEWAY_SECONDS + 30));
    assert_eq!(rejection(&signed(&header(), &early), None).0, Reason::TokenInvalid);
    let in_leeway = claims_with("nbf", json!(now() + NBF_LEEWAY_SECONDS - 2));
    assert!(verifier().verify(&signed(&header(), &in_leeway), None).is_ok());
}

#[test]
fn clock_skew_of_60_s_is_tolerated() {
    let verifier = verifier();
    for behind in [6, 30, 59] {
        let (iat, exp) = (now() + behind, now() + behind + 60);
        let mut fresh = claims_with("nbf", json!(iat));
        fresh["iat"] = json!(iat);
        fresh["exp"] = json!(exp);
        assert!(verifier.verify(&signed(&header(), &fresh), None).is_ok(), "{behind} s behind");
    }
}

#[test]
fn larger_clock_skew_is_named_and_logged_once() {
    let log = Log::default();
    let (writer, verifier) = (log.clone(), verifier());
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    tracing::subscriber::with_default(subscriber, || {
        for number in 0..100 {
            let early = claims_with("nbf", json!(now() + 90 + number));
            let rejected = verifier.verify(&signed(&header(), &early), None).unwrap_err();
            assert_eq!(rejected.reason(), Reason::TokenInvalid);
            let seconds = [90 + number, 89 + number].map(|seconds| format!("valid in {seconds} s"));
            let named = seconds.iter().any(|seconds| rejected.message().contains(seconds));
            assert!(named && rejected.message().contains("clock"), "{}", rejected.message());
        }
    });
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(logged.lines().count(), 1, "{logged}");
    assert!(logged.contains("seconds=90") || logged.contains("seconds=89"), "{logged}");
    assert!(logged.contains("behind that of the auth service"), "{logged}");
}

/// Captures the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn token_of_another_kind_is_rejected() {
    let access = signed(&header(), &claims());
    let refresh = signed(&header(), &claims_with("type", json!("refresh")));
    let only_access = (Reason::TokenKind, "Only non-refresh tokens are allowed".to_owned());
    let only_refresh = (Reason::TokenKind, "Only refresh tokens are allowed".to_owned());
    assert_eq!(rejection(&refresh, Some(TokenKind::Access)), only_access);
    assert_eq!(rejection(&access, Some(TokenKind::Refresh)), only_refresh);
    assert!(verifier().verify(&refresh, None).is_ok());
}

#[test]
fn first_failed_check_determines_the_error() {
    let verifier = verifier();
    let exp = now() + 60;
    verifier.revoke("id", exp);
    let reason = |token: &str| verifier.verify(token, Some(TokenKind::Access)).unwrap_err().reason();

    let mut claims = claims_with("type", json!("refresh"));
    claims["exp"] = json!(1);
    assert_eq!(reason(&format!("{}x", signed(&header(), &claims))), Reason::TokenInvalid);
    assert_eq!(reason(&signed(&header(), &claims)), Reason::TokenExpired);
    claims["exp"] = json!(exp);
    assert_eq!(reason(&signed(&header(), &claims)), Reason::TokenKind);
    claims["type"] = json!("access");
    assert_eq!(reason(&signed(&header(), &claims)), Reason::TokenRevoked);
    claims["jti"] = json!("another");
    assert!(verifier.verify(&signed(&header(), &claims), Some(TokenKind::Access)).is_ok());
}

#[test]
fn verifier_without_keys_is_unavailable() {
    let verifier = Verifier::new(Duration::from_secs(60));
    let error = verifier.verify(&signed(&header(), &claims()), None).unwrap_err();
    assert_eq!(error.reason(), Reason::Unavailable);
    assert!(!verifier.synced());
}

#[test]
fn keys_of_other_kinds_are_ignored() {
    let verifier = verifier();
    let rsa = JsonWebKey { kty: "RSA".to_owned(), ..jwk(&key(), "rsa") };
    let short = JsonWebKey { x: "AAAA".to_owned(), ..jwk(&key(), "short") };
    assert_eq!(verifier.replace_keys(&[rsa.clone(), short.clone()]), 0);
    assert!(verifier.verify(&signed(&header(), &claims()), None).is_ok(), "the keys are not replaced");
    assert_eq!(verifier.replace_keys(&[rsa, short, jwk(&key(), "new")]), 1);
    assert!(verifier.verify(&signed(&header(), &claims()), None).is_err());
}
