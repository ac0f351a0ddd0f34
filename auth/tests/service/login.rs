//! Logins.

use muse_auth::{AuthError, Role};
use muse_proto::{Error, Reason};
use muse_verifier::{TokenKind, Verifier};
use secrecy::SecretString;

use crate::harness::{PASSWORD, Service, admin_ops, error, folder};

fn unauthorized() -> Error {
    error(Reason::BadCredentials, "Unauthorized")
}

#[tokio::test]
async fn right_password_returns_access_and_refresh_token() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let tokens = service.login("admin", PASSWORD).await.unwrap();
    assert_eq!(tokens.access_token_expires_in, 24 * 3600);
    assert_eq!(tokens.refresh_token_expires_in, 30 * 24 * 3600);

    let keys = service.auth().get_jwks(muse_proto::v1::GetJwksRequest {}).await.unwrap().into_inner().keys;
    let verifier = Verifier::with_keys(&keys);
    let access = verifier.verify(&tokens.access_token, Some(TokenKind::Access)).unwrap();
    assert_eq!((access.sub.as_str(), access.fresh, access.exp - access.iat), ("admin", true, 24 * 3600));
    assert_eq!(access.nbf, access.iat);
    let refresh = verifier.verify(&tokens.refresh_token, Some(TokenKind::Refresh)).unwrap();
    assert_ne!(access.jti, refresh.jti);
    service.stop().await;
}

#[tokio::test]
async fn wrong_name_or_password_is_unauthorized() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    for (username, password) in [
        ("admin", "wrong"),
        ("admin", ""),
        ("", PASSWORD),
        ("", ""),
        ("nobody", PASSWORD),
        ("Admin", PASSWORD),
        ("admin ", PASSWORD),
        ("admin", "correct horse\0"),
        ("admin\0", PASSWORD),
        ("admin' OR '1'='1", PASSWORD),
        ("ädmin", PASSWORD),
        ("admin", &"x".repeat(1025)),
        (&"x".repeat(1025), PASSWORD),
    ] {
        assert_eq!(service.login(username, password).await, Err(unauthorized()), "{username:?}");
    }
    service.stop().await;
}

#[tokio::test]
async fn password_of_10_mb_is_too_large() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let rejected = service.login("admin", &"x".repeat(10 << 20)).await.unwrap_err();
    assert_eq!(rejected.reason(), Reason::TooLarge);
    assert!(service.login("admin", PASSWORD).await.is_ok());
    service.stop().await;
}

#[tokio::test]
async fn loopback_service_has_the_default_password() {
    let (_folder, mut config) = folder();
    config.admin_password = None;
    let service = Service::start(&config).await;
    assert!(service.login("admin", "admin").await.is_ok());
    service.stop().await;
}

#[tokio::test]
async fn exposed_service_has_no_default_password() {
    let (_folder, mut config) = folder();
    config.admin_password = None;
    config.exposed = true;
    let service = Service::start(&config).await;
    for password in ["admin", "", "password1"] {
        assert_eq!(service.login("admin", password).await, Err(unauthorized()));
    }
    service.stop().await;
}

#[tokio::test]
async fn admin_password_counts_at_the_first_start_only() {
    let (_folder, mut config) = folder();
    Service::start(&config).await.stop().await;
    config.admin_password = Some(SecretString::from("another one"));
    let service = Service::start(&config).await;
    assert_eq!(service.login("admin", "another one").await, Err(unauthorized()));
    assert!(service.login("admin", PASSWORD).await.is_ok());
    service.stop().await;
}

#[tokio::test]
async fn login_finds_composed_and_decomposed_names() {
    let (_folder, config) = folder();
    let operator = admin_ops(&config).await;
    let users = operator.users().unwrap();
    let added = users.add("A\u{30a}ngstro\u{308}m", SecretString::from(PASSWORD), Role::User).await.unwrap();
    assert_eq!(added.name, "Ångström");
    let rejected = users.add("Ångström", SecretString::from(PASSWORD), Role::User).await.unwrap_err();
    assert!(matches!(rejected, AuthError::UserExists(_)), "{rejected}");
    operator.close().await;
    let service = Service::start(&config).await;
    for typed in ["Ångström", "A\u{30a}ngstro\u{308}m"] {
        assert!(service.login(typed, PASSWORD).await.is_ok(), "{typed:?}");
    }
    service.stop().await;
}

#[tokio::test]
async fn confusable_names_are_rejected_for_new_users() {
    let (_folder, config) = folder();
    let operator = admin_ops(&config).await;
    let users = operator.users().unwrap();
    users.add("ape", SecretString::from(PASSWORD), Role::User).await.unwrap();
    for (name, problem) in [
        ("\u{430}\u{440}\u{435}", "looks like \"ape\""),
        ("adrnin", "looks like \"admin\""),
        ("ann\u{202e}", "U+202E"),
        ("p\u{430}ypal", "mixes letters"),
        ("\u{301}", "combining mark"),
    ] {
        let rejected = users.add(name, SecretString::from(PASSWORD), Role::User).await.unwrap_err();
        assert!(matches!(rejected, AuthError::BadName { .. }), "{rejected}");
        assert!(rejected.to_string().contains(problem), "{rejected}");
        assert!(!rejected.to_string().contains('\u{202e}'), "{rejected}");
    }
    operator.close().await;
}
