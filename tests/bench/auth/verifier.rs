//! Duration of token verification, alone and with a million revoked tokens.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer as _, SigningKey};
use muse_proto::v1::JsonWebKey;
use muse_verifier::{TokenKind, Verifier};
use serde_json::json;

use crate::{memory_kib, row, title};

const TOKENS: usize = 1000;
const CHECKS: usize = 1_000_000;
const REVOKED: u64 = 1_000_000;
const KID: &str = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";

fn in_a_day() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or_default() + 24 * 3600
}

fn token(key: &SigningKey, id: &str) -> String {
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let exp = in_a_day();
    let iat = exp - 24 * 3600;
    let header = part(json!({ "alg": "EdDSA", "typ": "JWT", "kid": KID }));
    let claims = part(json!({
        "fresh": true, "iat": iat, "nbf": iat, "exp": exp, "jti": id, "type": "access", "sub": "admin", "gen": 3,
        "fam": "0123456789abcdef0123456789abcdef",
    }));
    let message = format!("{header}.{claims}");
    let signature = URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes()).to_bytes());
    format!("{message}.{signature}")
}

/// Durations of verifications of the tokens in turn.
fn checks(verifier: &Verifier, tokens: &[String], is_done: impl Fn(usize) -> bool) -> Vec<Duration> {
    let mut times = Vec::with_capacity(CHECKS);
    while !is_done(times.len()) {
        let token = &tokens[times.len() % tokens.len()];
        let start = Instant::now();
        let checked = verifier.verify(token, Some(TokenKind::Access));
        times.push(start.elapsed());
        assert!(checked.is_ok());
    }
    times
}

pub(crate) fn measure() {
    let key = SigningKey::from_bytes(&[7; 32]);
    let jwk = JsonWebKey {
        kty: "OKP".to_owned(),
        crv: "Ed25519".to_owned(),
        kid: KID.to_owned(),
        x: URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes()),
        alg: "EdDSA".to_owned(),
        r#use: "sig".to_owned(),
    };
    let tokens: Vec<String> = (0..TOKENS).map(|number| token(&key, &format!("{number:032x}"))).collect();
    let ids: Vec<String> = (0..REVOKED).map(|number| format!("{:032x}", number + (1 << 40))).collect();
    let revoke_all = |verifier: &Verifier| {
        let (start, expires_at) = (Instant::now(), in_a_day());
        for id in &ids {
            verifier.revoke(id, expires_at);
        }
        start.elapsed()
    };
    title("Token verification");
    let verifier = Verifier::with_keys(std::slice::from_ref(&jwk));
    row("first verification", checks(&verifier, &tokens, |done| done == TOKENS));
    row("cached", checks(&verifier, &tokens, |done| done == CHECKS));

    let before = memory_kib("self", "VmRSS");
    let took = revoke_all(&verifier);
    let memory = memory_kib("self", "VmRSS").saturating_sub(before) / 1024;
    row("cached, a million other tokens revoked", checks(&verifier, &tokens, |done| done == CHECKS));
    drop(verifier);

    let verifier = Verifier::with_keys(&[jwk]);
    checks(&verifier, &tokens, |done| done == TOKENS);
    let added = AtomicBool::new(false);
    let times = std::thread::scope(|scope| {
        scope.spawn(|| {
            revoke_all(&verifier);
            added.store(true, Ordering::Relaxed);
        });
        checks(&verifier, &tokens, |_| added.load(Ordering::Relaxed))
    });
    row("cached, during a million revocations", times);
    println!("  a million revocations: {memory} MiB, added in {took:.1?}");
}
