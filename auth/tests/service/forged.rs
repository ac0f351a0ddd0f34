//! Forged and invalid tokens.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer as _, SigningKey};
use hkdf::Hkdf;
use muse_proto::{Reason, v1::GetJwksRequest};
use secrecy::SecretString;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{Service, error, folder};

const SECRET: &str = "a secret of 16 bytes or more";

/// The key of a service with `SECRET`, derived as documented.
fn key() -> SigningKey {
    let mut seed = [0; 32];
    Hkdf::<Sha256>::new(None, SECRET.as_bytes())
        .expand(b"muse-auth/ed25519-signing-key/v1", &mut seed)
        .unwrap();
    SigningKey::from_bytes(&seed)
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn part(token: &str, number: usize) -> Value {
    let part = URL_SAFE_NO_PAD.decode(token.split('.').nth(number).unwrap()).unwrap();
    serde_json::from_slice(&part).unwrap()
}

fn signed(header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(key().sign(message.as_bytes()).to_bytes()))
}

fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let padded = |pad: u8| -> Vec<u8> {
        let mut block = [0; 64];
        block[..key.len()].copy_from_slice(key);
        block.map(|byte| byte ^ pad).to_vec()
    };
    let inner = Sha256::digest([&padded(0x36), message].concat());
    Sha256::digest([padded(0x5c), inner.to_vec()].concat()).to_vec()
}

#[tokio::test]
async fn forged_tokens_are_rejected() {
    let (_folder, mut config) = folder();
    config.secret = Some(SecretString::from(SECRET));
    let service = Service::start(&config).await;
    let (_, refresh) = service.tokens().await;
    let (header, claims) = (part(&refresh, 0), part(&refresh, 1));
    assert_eq!(header["alg"], "EdDSA");
    assert!(service.refresh(&signed(&header, &claims)).await.is_ok(), "the test signs as the service does");

    let with = |value: &Value, name: &str, new: Value| {
        let mut changed = value.clone();
        if new.is_null() {
            changed.as_object_mut().unwrap().remove(name);
        } else {
            changed[name] = new;
        }
        changed
    };
    let none = with(&header, "alg", json!("none"));
    let hs256 = with(&header, "alg", json!("HS256"));
    let hs256_message = format!("{}.{}", encode(&hs256), encode(&claims));
    let public = key().verifying_key();
    let hmac = URL_SAFE_NO_PAD.encode(hmac_sha256(public.as_bytes(), hs256_message.as_bytes()));
    let far_future = json!(claims["exp"].as_i64().unwrap() - 60);

    let mut forged = vec![
        ("alg none, no signature", format!("{}.{}.", encode(&none), encode(&claims))),
        ("alg none, signed", signed(&none, &claims)),
        ("HS256 with the public key", format!("{hs256_message}.{hmac}")),
        ("a foreign kid", signed(&with(&header, "kid", json!("another")), &claims)),
        ("no kid", signed(&with(&header, "kid", Value::Null), &claims)),
        ("a future nbf", signed(&header, &with(&claims, "nbf", far_future))),
        ("garbage", "a.b.c".to_owned()),
        ("no dots", "garbage".to_owned()),
    ];
    for name in ["jti", "sub", "exp", "type"] {
        forged.push((name, signed(&header, &with(&claims, name, Value::Null))));
    }
    for (what, token) in forged {
        let rejected = service.refresh(&token).await.unwrap_err();
        assert_eq!(rejected.reason(), Reason::TokenInvalid, "{what}: {rejected}");
        let rejected = service.revoke(&token).await.unwrap_err();
        assert_eq!(rejected.reason(), Reason::TokenInvalid, "{what}: {rejected}");
    }
    service.stop().await;
}

#[tokio::test]
async fn token_of_another_service_is_rejected() {
    let (_folder, config) = folder();
    let (_other_folder, other_config) = folder();
    let (service, other) = (Service::start(&config).await, Service::start(&other_config).await);
    let (access, _) = other.tokens().await;
    let expected = error(Reason::TokenInvalid, "Signature verification failed");
    assert_eq!(service.revoke(&access).await, Err(expected));
    service.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn published_key_is_derived_from_the_secret() {
    let (_folder, mut config) = folder();
    config.secret = Some(SecretString::from(SECRET));
    let service = Service::start(&config).await;
    let keys = service.auth().get_jwks(GetJwksRequest {}).await.unwrap().into_inner().keys;
    let [published] = keys.as_slice() else { panic!("{keys:?}") };
    assert_eq!(published.x, URL_SAFE_NO_PAD.encode(key().verifying_key().as_bytes()));
    assert_eq!((published.kty.as_str(), published.crv.as_str()), ("OKP", "Ed25519"));
    assert_eq!((published.alg.as_str(), published.r#use.as_str()), ("EdDSA", "sig"));
    service.stop().await;
}
