//! Three ways to revoke a token, of which the strictest counts.

use muse_proto::{
    Reason,
    v1::{Revocation, UserTokens, revocation::What},
};
use muse_verifier::Verifier;
use serde_json::{Value, json};

use crate::signing::{claims, header, jwk, now, signed, verifier};

/// A token whose claims differ from the usual ones in these.
fn token(different: &Value) -> String {
    let mut claims = claims();
    claims.as_object_mut().unwrap().extend(different.as_object().unwrap().clone());
    signed(&header(), &claims)
}

fn holds(verifier: &Verifier, token: &str) -> bool {
    match verifier.verify(token, None) {
        Ok(_) => true,
        Err(refused) => {
            assert_eq!(
                (refused.reason(), refused.message()),
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
fn a_family_ends_together_and_alone() {
    let verifier = verifier();
    let (one, two) = (token(&json!({"jti": "1", "fam": "f"})), token(&json!({"jti": "2", "fam": "f"})));
    let (other, none) = (token(&json!({"jti": "3", "fam": "g"})), token(&json!({"jti": "4"})));
    verifier.revoke("1", now() + 60);
    assert!(!holds(&verifier, &one) && holds(&verifier, &two));
    verifier.revoke("f", now() + 60);
    assert!(!holds(&verifier, &one) && !holds(&verifier, &two));
    assert!(holds(&verifier, &other) && holds(&verifier, &none));
}

#[test]
fn the_tokens_that_a_user_had_end_and_later_ones_hold() {
    let verifier = verifier();
    let without = token(&json!({}));
    let of = |generation: i64| token(&json!({ "gen": generation }));
    verifier.revoke_user("someone else", 9, now() + 60);
    assert!(holds(&verifier, &without));
    verifier.revoke_user("admin", 2, now() + 60);
    assert!(!holds(&verifier, &without) && !holds(&verifier, &of(0)) && !holds(&verifier, &of(1)));
    assert!(holds(&verifier, &of(2)) && holds(&verifier, &of(3)));
    // News that come late take nothing back.
    verifier.revoke_user("admin", 1, now() + 90);
    assert!(!holds(&verifier, &of(1)) && holds(&verifier, &of(2)));
}

#[test]
fn the_stricter_wins() {
    let exp = now() + 60;
    let new = token(&json!({"jti": "new", "gen": 2}));
    let old = token(&json!({"jti": "old", "gen": 1}));
    for order in [[jti("new", exp), user("admin", 2, exp)], [user("admin", 2, exp), jti("new", exp)]] {
        let verifier = verifier();
        verifier.revoke_all(&order);
        assert!(!holds(&verifier, &new), "by its id");
        assert!(!holds(&verifier, &old), "by its user");
    }
}

#[test]
fn a_revocation_of_an_unknown_kind_is_left_out() {
    let verifier = verifier();
    verifier.revoke_all(&[Revocation { what: None, expires_at: now() + 60 }, jti("id", now() + 60)]);
    assert!(!holds(&verifier, &token(&json!({}))));
}

#[test]
fn a_token_that_was_accepted_before_is_looked_at_anew() {
    let verifier = verifier();
    let token = token(&json!({}));
    for _ in 0..3 {
        assert!(holds(&verifier, &token));
    }
    let other_key = ed25519_dalek::SigningKey::from_bytes(&[8; 32]);
    verifier.replace_keys(&[jwk(&other_key, "other")]);
    assert_eq!(verifier.verify(&token, None).unwrap_err().reason(), Reason::TokenInvalid);
    verifier.replace_keys(&[jwk(&crate::signing::key(), crate::signing::KID)]);
    assert!(holds(&verifier, &token));
    verifier.revoke("id", now() + 60);
    assert!(!holds(&verifier, &token));
}
