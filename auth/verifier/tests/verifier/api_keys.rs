//! API keys in a verifier: how they are verified, and how they arrive.

use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use http::{HeaderMap, header::AUTHORIZATION};
use muse_proto::{
    Error, Reason,
    v1::{VerifiableKey, WatchRevocationsRequest, WatchRevocationsResponse},
};
use muse_verifier::{
    Credential, Principal, TokenKind, Verifier,
    api_keys::{KeyId, SECRET_BYTES, compose},
};

use crate::{
    follow::{Followed, LONG, message},
    signing::{KID, claims, header, jwk, key, now, signed, verifier},
};

/// A key of ann, and what a verifier gets of it.
fn api_key(number: u64) -> (String, VerifiableKey) {
    let id = KeyId::new(number << 40);
    let (text, digest) = compose(id, &[number as u8; SECRET_BYTES]);
    let owner = "ann".to_owned();
    (text, VerifiableKey { id: id.number(), digest: digest.to_vec(), owner, ..VerifiableKey::default() })
}

fn presented(verifier: &Verifier, credential: &str, accepted: Credential) -> Result<Principal, Error> {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, format!("Bearer {credential}").parse().unwrap());
    verifier.authenticate(&headers, accepted)
}

fn reason(verifier: &Verifier, credential: &str) -> Option<Reason> {
    presented(verifier, credential, Credential::AccessTokenOrKey).err().map(|error| error.reason())
}

#[test]
fn each_problem_of_a_key_has_its_own_error() {
    let verifier = verifier();
    let (valid, message) = api_key(1);
    verifier.apply_keys(std::slice::from_ref(&message));
    let principal = presented(&verifier, &valid, Credential::AccessTokenOrKey).unwrap();
    assert_eq!(principal.user(), "ann");
    assert!(!format!("{principal:?}").contains(&valid[18..]));

    let mut rejected = Vec::new();
    let mut reject = |credential: &str, expected: Reason| {
        let error = presented(&verifier, credential, Credential::AccessTokenOrKey).unwrap_err();
        assert_eq!((error.reason(), error.reason().http_status()), (expected, 401));
        assert!(!error.message().contains("muse_"), "{error}");
        rejected.push(error.message().to_owned());
    };
    let typo = valid.replace(&valid[30..31], if &valid[30..31] == "a" { "b" } else { "a" });
    reject(&typo, Reason::KeyMalformed);
    reject(&api_key(2).0, Reason::KeyUnknown);
    for (changed, expected) in [
        (VerifiableKey { disabled: true, ..message.clone() }, Reason::KeyDisabled),
        (VerifiableKey { expires_at: now(), ..message.clone() }, Reason::KeyExpired),
        (VerifiableKey { digest: Vec::new(), deleted: true, ..message.clone() }, Reason::KeyRevoked),
    ] {
        verifier.apply_keys(&[changed]);
        reject(&valid, expected);
    }
    rejected.sort_unstable();
    rejected.dedup();
    assert_eq!(rejected.len(), 5, "{rejected:?}");
}

#[test]
fn key_is_accepted_only_where_keys_are() {
    let verifier = verifier();
    let (text, message) = api_key(1);
    verifier.apply_keys(&[message]);
    let token = signed(&header(), &claims());
    for accepted in
        [Credential::Token(TokenKind::Access), Credential::Token(TokenKind::Refresh), Credential::AnyToken]
    {
        let error = presented(&verifier, &text, accepted).unwrap_err();
        assert_eq!(error.reason(), Reason::PermissionDenied, "{accepted:?}");
    }
    for accepted in [Credential::AccessTokenOrKey, Credential::Key, Credential::Any] {
        assert!(matches!(presented(&verifier, &text, accepted), Ok(Principal::Key(_))), "{accepted:?}");
    }
    assert!(presented(&verifier, &token, Credential::AccessTokenOrKey).is_ok());
    let error = presented(&verifier, &token, Credential::Key).unwrap_err();
    assert_eq!(error.reason(), Reason::TokenKind);
    assert!(verifier.verify(&text, None).is_err(), "it is no token");
}

#[test]
fn keys_do_not_depend_on_the_signing_keys() {
    let verifier = verifier();
    let (text, message) = api_key(1);
    verifier.apply_keys(&[message]);
    verifier.replace_keys(&[jwk(&SigningKey::from_bytes(&[9; 32]), "another")]);
    assert_eq!(reason(&verifier, &text), None);
    assert!(verifier.verify(&signed(&header(), &claims()), None).is_err());
}

async fn until(followed: &Followed, credential: &str, expected: Option<Reason>) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while reason(&followed.verifier, credential) != expected {
        assert!(Instant::now() < deadline, "{:?}", reason(&followed.verifier, credential));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn keys(key_cursor: i64, api_keys: &[&VerifiableKey]) -> WatchRevocationsResponse {
    let api_keys = api_keys.iter().map(|&key| key.clone()).collect();
    WatchRevocationsResponse { api_keys, key_cursor, ..message(1) }
}

#[tokio::test]
async fn keys_arrive_as_a_snapshot_and_then_as_changes() {
    let mut followed = Followed::start(LONG).await;
    let ([first, second, third], [a, b, c]) = {
        let [(first, a), (second, b), (third, c)] = [api_key(1), api_key(2), api_key(3)];
        ([first, second, third], [a, b, c])
    };
    let watch = followed.call().await;
    assert_eq!(watch.request, WatchRevocationsRequest::default());
    let all =
        |response| WatchRevocationsResponse { all_api_keys: true, keys: vec![jwk(&key(), KID)], ..response };
    watch.send(WatchRevocationsResponse { more: true, ..all(keys(5, &[&a])) });
    watch.send(all(keys(6, &[&b])));
    until(&followed, &second, None).await;
    assert_eq!(
        (reason(&followed.verifier, &first), reason(&followed.verifier, &third)),
        (None, Some(Reason::KeyUnknown))
    );

    watch.send(keys(8, &[&c, &VerifiableKey { digest: Vec::new(), deleted: true, ..a.clone() }]));
    until(&followed, &first, Some(Reason::KeyRevoked)).await;
    until(&followed, &third, None).await;

    // A break: changes from the cursor on. Meanwhile an unknown key may be a new one.
    drop(watch);
    let watch = followed.call().await;
    assert_eq!(watch.request.key_cursor, 8);
    assert_eq!(reason(&followed.verifier, &api_key(4).0), Some(Reason::Unavailable));
    assert_eq!(reason(&followed.verifier, &third), None);

    // Another database: its keys replace the others, when all of them have arrived.
    let disabled = VerifiableKey { disabled: true, ..b.clone() };
    watch.send(WatchRevocationsResponse { more: true, ..all(keys(2, &[&a, &disabled])) });
    until(&followed, &second, Some(Reason::KeyDisabled)).await;
    drop(watch);
    let watch = followed.call().await;
    assert_eq!(watch.request.key_cursor, 0, "the snapshot was not complete");
    assert_eq!(reason(&followed.verifier, &first), Some(Reason::KeyRevoked), "nor is it in effect");
    watch.send(all(keys(3, &[&a])));
    until(&followed, &first, None).await;
    assert_eq!(reason(&followed.verifier, &third), Some(Reason::KeyUnknown));

    // An older auth service has none.
    watch.send(keys(0, &[]));
    until(&followed, &first, Some(Reason::KeyUnknown)).await;
}

#[tokio::test]
async fn keys_of_a_stale_verifier_are_unavailable() {
    let (followed, watch) = Followed::synced(Duration::from_secs(1)).await;
    let (text, key) = api_key(1);
    watch.send(keys(2, &[&key]));
    until(&followed, &text, None).await;
    drop(watch);
    until(&followed, &text, Some(Reason::Unavailable)).await;
    let unsynced = Verifier::new(LONG);
    assert_eq!(reason(&unsynced, &text), Some(Reason::Unavailable));
}
