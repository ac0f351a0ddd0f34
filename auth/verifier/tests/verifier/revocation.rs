//! Revocation by id, by family and by user.

use muse_proto::{
    Reason,
    v1::{Revocation, UserTokens, revocation::What},
};
use muse_verifier::Verifier;
use serde_json::{Value, json};

use crate::signing::{claims, header, jwk, now, signed, verifier};

/// A token with these claims in place of the usual ones.
fn token(different: &Value) -> String {
    let mut claims = claims();
    claims.as_object_mut().unwrap().extend(different.as_object().unwrap().clone());
    signed(&header(), &claims)
}

fn is_valid(verifier: &Verifier, token: &str) -> bool {
    match verifier.verify(token, None) {
        Ok(_) => true,
        Err(rejected) => {
            assert_eq!(
                (rejected.reason(), rejected.message()),
                (Reason::TokenRevoked, "Token has been revoked")
            );
            false
        }
    }
}

fn jti(id: &str, expires_at: i64) -> Revocation {
    Revocation { what: Some(What::Jti(id.to_owned())), expires_at }
}

fn user(name: &str, before_generation: i64, expires_at: i64) -> Revocation {
    let tokens = UserTokens { username: name.to_owned(), before_generation };
    Revocation { what: Some(What::User(tokens)), expires_at }
}

#[test]
fn revoked_family_ends_all_its_tokens_only() {
    let verifier = verifier();
    let (one, two) = (token(&json!({"jti": "1", "fam": "f"})), token(&json!({"jti": "2", "fam": "f"})));
    let (other, none) = (token(&json!({"jti": "3", "fam": "g"})), token(&json!({"jti": "4"})));
    verifier.revoke("1", now() + 60);
    assert!(!is_valid(&verifier, &one) && is_valid(&verifier, &two));
    verifier.revoke("f", now() + 60);
    assert!(!is_valid(&verifier, &one) && !is_valid(&verifier, &two));
    assert!(is_valid(&verifier, &other) && is_valid(&verifier, &none));
}

#[test]
fn revoked_user_loses_older_generations_only() {
    let verifier = verifier();
    let without = token(&json!({}));
    let of = |generation: i64| token(&json!({ "gen": generation }));
    verifier.revoke_user("someone else", 9, now() + 60);
    assert!(is_valid(&verifier, &without));
    verifier.revoke_user("admin", 2, now() + 60);
    assert!(!is_valid(&verifier, &without) && !is_valid(&verifier, &of(0)) && !is_valid(&verifier, &of(1)));
    assert!(is_valid(&verifier, &of(2)) && is_valid(&verifier, &of(3)));
    // An older revocation that arrives late does not replace a newer one.
    verifier.revoke_user("admin", 1, now() + 90);
    assert!(!is_valid(&verifier, &of(1)) && is_valid(&verifier, &of(2)));
}

#[test]
fn stricter_revocation_applies_in_any_order() {
    let exp = now() + 60;
    let new = token(&json!({"jti": "new", "gen": 2}));
    let old = token(&json!({"jti": "old", "gen": 1}));
    for order in [[jti("new", exp), user("admin", 2, exp)], [user("admin", 2, exp), jti("new", exp)]] {
        let verifier = verifier();
        verifier.revoke_all(&order);
        assert!(!is_valid(&verifier, &new), "by its id");
        assert!(!is_valid(&verifier, &old), "by its user");
    }
}

#[test]
fn unknown_kind_of_revocation_is_ignored() {
    let verifier = verifier();
    verifier.revoke_all(&[Revocation { what: None, expires_at: now() + 60 }, jti("id", now() + 60)]);
    assert!(!is_valid(&verifier, &token(&json!({}))));
}

#[test]
fn cached_token_is_checked_again() {
    let verifier = verifier();
    let token = token(&json!({}));
    for _ in 0..3 {
        assert!(is_valid(&verifier, &token));
    }
    let other_key = ed25519_dalek::SigningKey::from_bytes(&[8; 32]);
    verifier.replace_keys(&[jwk(&other_key, "other")]);
    assert_eq!(verifier.verify(&token, None).unwrap_err().reason(), Reason::TokenInvalid);
    verifier.replace_keys(&[jwk(&crate::signing::key(), crate::signing::KID)]);
    assert!(is_valid(&verifier, &token));
    verifier.revoke("id", now() + 60);
    assert!(!is_valid(&verifier, &token));
}
