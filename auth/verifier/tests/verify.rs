//! Which tokens hold, and in which order the others are refused.

#![expect(clippy::unwrap_used, reason = "a test helper that fails fails its test")]

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer as _, SigningKey};
use muse_proto::{Reason, v1::JsonWebKey};
use muse_verifier::{NBF_LEEWAY_SECONDS, TokenKind, Verifier};
use serde_json::{Value, json};

const KID: &str = "the key";

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn jwk(key: &SigningKey, kid: &str) -> JsonWebKey {
    JsonWebKey {
        kty: "OKP".to_owned(),
        crv: "Ed25519".to_owned(),
        kid: kid.to_owned(),
        x: URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes()),
        alg: "EdDSA".to_owned(),
        r#use: "sig".to_owned(),
    }
}

fn verifier() -> Verifier {
    Verifier::with_keys(&[jwk(&key(), KID)])
}

fn header() -> Value {
    json!({"alg": "EdDSA", "typ": "JWT", "kid": KID})
}

fn claims() -> Value {
    let now = now();
    json!({"fresh": true, "iat": now, "nbf": now, "exp": now + 60, "jti": "id", "type": "access", "sub": "admin"})
}

/// `claims()` with one of them set, or left out if `value` is null.
fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    let map = claims.as_object_mut().unwrap();
    if value.is_null() {
        map.remove(name)
    } else {
        map.insert(name.to_owned(), value)
    };
    claims
}

fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn signed(header: &Value, claims: &Value) -> String {
    let message = message(header, claims);
    let signature = key().sign(message.as_bytes()).to_bytes();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn refused(token: &str, kind: Option<TokenKind>) -> (Reason, String) {
    let error = verifier().verify(token, kind).unwrap_err();
    (error.reason(), error.message().to_owned())
}

#[test]
fn a_token_holds() {
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
        assert_eq!(refused(&token, None).0, Reason::TokenInvalid, "{token:?}");
    }
}

#[test]
fn no_character_of_a_token_can_be_changed() {
    let good = signed(&header(), &claims());
    for place in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert_eq!(refused(&changed, None).0, Reason::TokenInvalid, "{changed:?}");
    }
}

#[test]
fn the_last_character_of_a_signature_counts_in_full() {
    let good = signed(&header(), &claims());
    let (rest, last) = good.split_at(good.len() - 1);
    for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".chars() {
        if !last.starts_with(other) {
            let expected = (Reason::TokenInvalid, "Signature verification failed".to_owned());
            assert_eq!(refused(&format!("{rest}{other}"), None), expected);
        }
    }
}

#[test]
fn another_algorithm_is_invalid() {
    for alg in ["none", "None", "HS256", "ES256", "RS256"] {
        let header = json!({"alg": alg, "typ": "JWT", "kid": KID});
        assert_eq!(refused(&signed(&header, &claims()), None).0, Reason::TokenInvalid, "{alg}");
        assert_eq!(
            refused(&format!("{}.", message(&header, &claims())), None).0,
            Reason::TokenInvalid,
            "{alg}"
        );
    }
}

#[test]
fn a_foreign_or_missing_key_id_is_invalid() {
    for header in
        [json!({"alg": "EdDSA"}), json!({"alg": "EdDSA", "kid": "x"}), json!({"alg": "EdDSA", "kid": 1})]
    {
        assert_eq!(refused(&signed(&header, &claims()), None).0, Reason::TokenInvalid, "{header}");
    }
}

#[test]
fn critical_extensions_are_not_understood() {
    let header = json!({"alg": "EdDSA", "kid": KID, "crit": ["b64"], "b64": false});
    assert_eq!(refused(&signed(&header, &claims()), None).0, Reason::TokenInvalid);
}

#[test]
fn a_missing_or_odd_claim_is_invalid() {
    for name in ["jti", "sub", "exp", "type"] {
        assert_eq!(
            refused(&signed(&header(), &claims_with(name, Value::Null)), None).0,
            Reason::TokenInvalid,
            "{name}"
        );
        assert_eq!(
            refused(&signed(&header(), &claims_with(name, json!([1]))), None).0,
            Reason::TokenInvalid,
            "{name}"
        );
    }
    assert_eq!(
        refused(&signed(&header(), &claims_with("exp", json!("9999999999"))), None).0,
        Reason::TokenInvalid
    );
    assert_eq!(
        refused(&signed(&header(), &claims_with("type", json!("root"))), None).0,
        Reason::TokenInvalid
    );
    assert_eq!(refused(&signed(&header(), &json!("text")), None).0, Reason::TokenInvalid);
}

#[test]
fn time_is_checked() {
    let expired = (Reason::TokenExpired, "Token has expired".to_owned());
    for exp in [0, -5, now() - 1, now()] {
        assert_eq!(refused(&signed(&header(), &claims_with("exp", json!(exp))), None), expired, "{exp}");
    }
    let early = claims_with("nbf", json!(now() + NBF_LEEWAY_SECONDS + 30));
    assert_eq!(refused(&signed(&header(), &early), None).0, Reason::TokenInvalid);
    let in_leeway = claims_with("nbf", json!(now() + NBF_LEEWAY_SECONDS - 2));
    assert!(verifier().verify(&signed(&header(), &in_leeway), None).is_ok());
}

#[test]
fn the_kind_is_checked() {
    let access = signed(&header(), &claims());
    let refresh = signed(&header(), &claims_with("type", json!("refresh")));
    let only_access = (Reason::TokenKind, "Only non-refresh tokens are allowed".to_owned());
    let only_refresh = (Reason::TokenKind, "Only refresh tokens are allowed".to_owned());
    assert_eq!(refused(&refresh, Some(TokenKind::Access)), only_access);
    assert_eq!(refused(&access, Some(TokenKind::Refresh)), only_refresh);
    assert!(verifier().verify(&refresh, None).is_ok());
}

#[test]
fn refusals_come_in_order() {
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
fn without_keys_nothing_can_be_said() {
    let verifier = Verifier::new();
    let error = verifier.verify(&signed(&header(), &claims()), None).unwrap_err();
    assert_eq!(error.reason(), Reason::Unavailable);
    assert!(!verifier.synced());
}

#[test]
fn keys_of_other_kinds_are_left_out() {
    let verifier = verifier();
    let rsa = JsonWebKey { kty: "RSA".to_owned(), ..jwk(&key(), "rsa") };
    let short = JsonWebKey { x: "AAAA".to_owned(), ..jwk(&key(), "short") };
    assert_eq!(verifier.replace_keys(&[rsa.clone(), short.clone()]), 0);
    assert!(verifier.verify(&signed(&header(), &claims()), None).is_ok(), "the old keys stay");
    assert_eq!(verifier.replace_keys(&[rsa, short, jwk(&key(), "new")]), 1);
    assert!(verifier.verify(&signed(&header(), &claims()), None).is_err());
}
