//! Keys, claims and tokens.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer as _, SigningKey};
use muse_proto::v1::JsonWebKey;
use muse_verifier::Verifier;
use serde_json::{Value, json};

pub(crate) const KID: &str = "the key";

pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

pub(crate) fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

pub(crate) fn jwk(key: &SigningKey, kid: &str) -> JsonWebKey {
    JsonWebKey {
        kty: "OKP".to_owned(),
        crv: "Ed25519".to_owned(),
        kid: kid.to_owned(),
        x: URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes()),
        alg: "EdDSA".to_owned(),
        r#use: "sig".to_owned(),
    }
}

pub(crate) fn verifier() -> Verifier {
    Verifier::with_keys(&[jwk(&key(), KID)])
}

pub(crate) fn header() -> Value {
    json!({"alg": "EdDSA", "typ": "JWT", "kid": KID})
}

pub(crate) fn claims() -> Value {
    let now = now();
    json!({"fresh": true, "iat": now, "nbf": now, "exp": now + 60, "jti": "id", "type": "access", "sub": "admin"})
}

/// `claims()` with one of them set, or left out if `value` is null.
pub(crate) fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    let map = claims.as_object_mut().unwrap();
    if value.is_null() {
        map.remove(name)
    } else {
        map.insert(name.to_owned(), value)
    };
    claims
}

pub(crate) fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()))
}

pub(crate) fn signed(header: &Value, claims: &Value) -> String {
    signed_with(&key(), header, claims)
}

pub(crate) fn signed_with(key: &SigningKey, header: &Value, claims: &Value) -> String {
    let message = message(header, claims);
    let signature = key.sign(message.as_bytes()).to_bytes();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}
