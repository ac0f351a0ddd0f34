//! API keys of a real service, and verifiers that follow it.

use muse_auth::{NewApiKey, Quota, Role};
use muse_proto::{
    Error, Reason,
    v1::{
        AddUserRequest, ApiKey, CreateKeyRequest, DeleteKeyRequest, DescribeKeyRequest, GetJwksRequest,
        GetKeyRequest, KeyUse, ListKeysRequest, ListUsersRequest, RefreshTokenRequest, RemoveUserRequest,
        ReportKeyUseRequest, RevokeTokenRequest, RevokeUserTokensRequest, SetDisabledRequest,
        SetPasswordRequest, SetRoleRequest, UpdateKeyRequest, key_service_client::KeyServiceClient,
    },
};
use muse_verifier::{Verifier, api_keys::KeyId};
use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status, transport::Channel};

use crate::harness::{PASSWORD, Service, admin_ops, eventually, folder, verifier, with_token};

fn message_of<T>(response: Result<Response<T>, Status>) -> Result<T, Error> {
    response.map(Response::into_inner).map_err(|status| Error::from(&status))
}

fn keys(service: &Service) -> KeyServiceClient<Channel> {
    KeyServiceClient::new(service.channel.clone())
}

async fn create(
    service: &Service,
    token: &str,
    message: CreateKeyRequest,
) -> Result<(ApiKey, String), Error> {
    let created = message_of(keys(service).create_key(with_token(message, token)).await)?;
    Ok((created.key.unwrap(), created.secret_key))
}

fn named(name: &str) -> CreateKeyRequest {
    CreateKeyRequest { name: name.to_owned(), ..CreateKeyRequest::default() }
}

async fn list(service: &Service, token: &str, request: ListKeysRequest) -> Result<Vec<String>, Error> {
    let page = message_of(keys(service).list_keys(with_token(request, token)).await)?;
    Ok(page.keys.into_iter().map(|key| key.name).collect())
}

async fn describe(service: &Service, key: &str) -> Result<ApiKey, Error> {
    let described = message_of(keys(service).describe_key(with_token(DescribeKeyRequest {}, key)).await)?;
    Ok(described.key.unwrap())
}

async fn update(service: &Service, token: &str, change: UpdateKeyRequest) -> Result<ApiKey, Error> {
    Ok(message_of(keys(service).update_key(with_token(change, token)).await)?.key.unwrap())
}

async fn delete(service: &Service, token: &str, id: &str) -> Result<(), Error> {
    let request = DeleteKeyRequest { id: id.to_owned() };
    message_of(keys(service).delete_key(with_token(request, token)).await).map(drop)
}

/// Adds a user, and logs in.
async fn access_token_of(service: &Service, admin: &str, name: &str) -> String {
    let user = AddUserRequest {
        username: name.to_owned(),
        password: PASSWORD.to_owned(),
        role: muse_proto::v1::Role::User.into(),
    };
    message_of(service.users().add_user(with_token(user, admin)).await).unwrap();
    service.login(name, PASSWORD).await.unwrap().access_token
}

fn reason(verifier: &Verifier, key: &str) -> Option<Reason> {
    verifier.verify_key(key).err().map(|error| error.reason())
}

/// Waits until a verifier gives this verdict on a key.
async fn effective(verifier: &Verifier, key: &str, expected: Option<Reason>) {
    eventually("the change is effective", async || reason(verifier, key) == expected).await;
}

/// A verifier that follows a service until the end of the test.
async fn follower(service: &Service, shutdown: &CancellationToken) -> Verifier {
    let verifier = verifier();
    drop(verifier.follow(service.channel.clone(), shutdown.clone()));
    verifier.wait_until_synced().await;
    verifier
}

#[tokio::test]
async fn key_is_accepted_until_it_is_deleted() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let (admin, _) = service.tokens().await;
    let shutdown = CancellationToken::new();
    let early = follower(&service, &shutdown).await;
    let request = CreateKeyRequest { expires_in: 3600, bulk: true, ..named("weaviate") };
    let (key, text) = create(&service, &admin, request).await.unwrap();
    assert_eq!(reason(&early, &text), None, "verifiers know it when it is returned");
    let late = follower(&service, &shutdown).await;
    assert_eq!(reason(&late, &text), None);
    assert!(text.starts_with(&format!("muse_{}_", key.id)));
    assert_eq!((key.owner.as_str(), key.created_by.as_str(), key.bulk), ("admin", "admin", true));
    assert_eq!(key.expires_at, key.created_at + 3600);
    assert_eq!(describe(&service, &text).await.unwrap(), key);

    let change = |disabled| UpdateKeyRequest { id: key.id.clone(), disabled, ..UpdateKeyRequest::default() };
    let disabled = update(&service, &admin, change(Some(true))).await.unwrap();
    assert_eq!(disabled, ApiKey { disabled: true, ..key.clone() });
    effective(&early, &text, Some(Reason::KeyDisabled)).await;
    assert_eq!(describe(&service, &text).await.unwrap_err().reason(), Reason::KeyDisabled);
    update(&service, &admin, change(Some(false))).await.unwrap();
    effective(&early, &text, None).await;
    let renamed = UpdateKeyRequest { name: Some("qdrant".to_owned()), expires_in: Some(0), ..change(None) };
    let renamed = update(&service, &admin, renamed).await.unwrap();
    assert_eq!((renamed.name.as_str(), renamed.expires_at, renamed.id), ("qdrant", 0, key.id.clone()));

    delete(&service, &admin, &key.id).await.unwrap();
    effective(&early, &text, Some(Reason::KeyRevoked)).await;
    effective(&late, &text, Some(Reason::KeyRevoked)).await;
    assert_eq!(reason(&follower(&service, &shutdown).await, &text), Some(Reason::KeyRevoked));
    assert_eq!(describe(&service, &text).await.unwrap_err().reason(), Reason::KeyRevoked);
    assert_eq!(delete(&service, &admin, &key.id).await.unwrap_err().reason(), Reason::NoSuchKey);
    shutdown.cancel();
    service.stop().await;
}

#[tokio::test]
async fn key_of_the_command_line_reaches_verifiers() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let shutdown = CancellationToken::new();
    let verifier = follower(&service, &shutdown).await;
    let operator = admin_ops(&config).await;
    let new = NewApiKey { name: "a", owner: "admin", expires_in: 0, bulk: false, quota: Quota::NONE };
    let (key, secret) = operator.api_keys().create(new).await.unwrap();
    assert_eq!(key.created_by, None);
    effective(&verifier, secret.expose_secret(), None).await;
    assert_eq!(operator.api_keys().list(Some("admin")).await.unwrap(), std::slice::from_ref(&key));
    operator.api_keys().delete(&key.id.to_string()).await.unwrap();
    effective(&verifier, secret.expose_secret(), Some(Reason::KeyRevoked)).await;
    operator.close().await;
    shutdown.cancel();
    service.stop().await;
}

#[tokio::test]
async fn keys_end_with_their_owner() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let (admin, _) = service.tokens().await;
    let shutdown = CancellationToken::new();
    let verifier = follower(&service, &shutdown).await;
    let disable = |disabled| SetDisabledRequest { username: "ann".to_owned(), disabled };
    let ann = access_token_of(&service, &admin, "ann").await;

    // Neither the revocation of all tokens nor a change of the password ends a key.
    let (_, text) = create(&service, &ann, named("retained")).await.unwrap();
    let tokens = |delete_keys| RevokeUserTokensRequest { username: "ann".to_owned(), delete_keys };
    message_of(service.auth().revoke_user_tokens(with_token(tokens(false), &admin)).await).unwrap();
    let password = |delete_keys| SetPasswordRequest {
        username: "ann".to_owned(),
        password: PASSWORD.to_owned(),
        delete_keys,
        ..SetPasswordRequest::default()
    };
    message_of(service.users().set_password(with_token(password(false), &admin)).await).unwrap();
    assert!(describe(&service, &text).await.is_ok());
    assert_eq!(reason(&verifier, &text), None);

    // Unless that is requested.
    message_of(service.users().set_password(with_token(password(true), &admin)).await).unwrap();
    effective(&verifier, &text, Some(Reason::KeyRevoked)).await;
    let of_ann = || CreateKeyRequest { username: "ann".to_owned(), ..named("of ann") };
    let (_, key) = create(&service, &admin, of_ann()).await.unwrap();
    message_of(service.auth().revoke_user_tokens(with_token(tokens(true), &admin)).await).unwrap();
    effective(&verifier, &key, Some(Reason::KeyRevoked)).await;

    let (described, key) = create(&service, &admin, of_ann()).await.unwrap();
    assert_eq!((described.owner.as_str(), described.created_by.as_str()), ("ann", "admin"));
    message_of(service.users().set_disabled(with_token(disable(true), &admin)).await).unwrap();
    effective(&verifier, &key, Some(Reason::KeyRevoked)).await;
    assert_eq!(create(&service, &admin, of_ann()).await.unwrap_err().reason(), Reason::NoSuchUser);
    message_of(service.users().set_disabled(with_token(disable(false), &admin)).await).unwrap();
    assert_eq!(describe(&service, &key).await.unwrap_err().reason(), Reason::KeyRevoked, "for good");

    let (_, key) = create(&service, &admin, of_ann()).await.unwrap();
    let remove = RemoveUserRequest { username: "ann".to_owned() };
    message_of(service.users().remove_user(with_token(remove, &admin)).await).unwrap();
    effective(&verifier, &key, Some(Reason::KeyRevoked)).await;
    let another = access_token_of(&service, &admin, "ann").await;
    assert_eq!(list(&service, &another, ListKeysRequest::default()).await.unwrap(), Vec::<String>::new());
    assert_eq!(reason(&verifier, &key), Some(Reason::KeyRevoked), "another user of the name");
    shutdown.cancel();
    service.stop().await;
}

#[tokio::test]
async fn key_has_no_further_rights() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let (admin, _) = service.tokens().await;
    // Of an admin, and still.
    let (key, text) = create(&service, &admin, named("a")).await.unwrap();
    let (mut auth, mut users, mut keys) = (service.auth(), service.users(), keys(&service));
    let user = || "admin".to_owned();
    let id = key.id.clone();
    let rejections = [
        auth.refresh_token(with_token(RefreshTokenRequest {}, &text)).await.map(drop),
        auth.revoke_token(with_token(RevokeTokenRequest {}, &text)).await.map(drop),
        auth.revoke_user_tokens(with_token(RevokeUserTokensRequest::default(), &text)).await.map(drop),
        users.add_user(with_token(AddUserRequest::default(), &text)).await.map(drop),
        users.remove_user(with_token(RemoveUserRequest { username: user() }, &text)).await.map(drop),
        users.list_users(with_token(ListUsersRequest::default(), &text)).await.map(drop),
        users.set_disabled(with_token(SetDisabledRequest::default(), &text)).await.map(drop),
        users.set_role(with_token(SetRoleRequest::default(), &text)).await.map(drop),
        users.set_password(with_token(SetPasswordRequest::default(), &text)).await.map(drop),
        keys.create_key(with_token(named("b"), &text)).await.map(drop),
        keys.list_keys(with_token(ListKeysRequest::default(), &text)).await.map(drop),
        keys.get_key(with_token(GetKeyRequest { id: id.clone() }, &text)).await.map(drop),
        keys.update_key(with_token(UpdateKeyRequest { id: id.clone(), ..Default::default() }, &text))
            .await
            .map(drop),
        keys.delete_key(with_token(DeleteKeyRequest { id }, &text)).await.map(drop),
    ];
    for rejection in rejections {
        let status = rejection.unwrap_err();
        assert_eq!(Error::from(&status).reason(), Reason::PermissionDenied, "{status}");
        assert!(!format!("{status:?}").contains(&text[18..]));
    }
    assert!(auth.get_jwks(GetJwksRequest {}).await.is_ok(), "they are public within the stack");
    // And a token is no key.
    assert_eq!(describe(&service, &admin).await.unwrap_err().reason(), Reason::TokenKind);
    assert!(describe(&service, &text).await.is_ok());
    service.stop().await;
}

#[tokio::test]
async fn users_see_their_own_keys_and_admins_see_all() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let (admin, _) = service.tokens().await;
    let ann = access_token_of(&service, &admin, "ann").await;
    let bob = access_token_of(&service, &admin, "bob").await;
    for name in ["one", "two", "three"] {
        create(&service, &ann, named(name)).await.unwrap();
    }
    let (key, text) = create(&service, &bob, named("of bob")).await.unwrap();

    let all = |username: &str| ListKeysRequest { username: username.to_owned(), ..Default::default() };
    let mut of_ann = list(&service, &ann, all("")).await.unwrap();
    of_ann.sort_unstable();
    assert_eq!(of_ann, ["one", "three", "two"]);
    assert_eq!(list(&service, &admin, all("")).await.unwrap(), Vec::<String>::new());
    assert_eq!(list(&service, &admin, all("bob")).await.unwrap(), ["of bob"]);
    assert_eq!(list(&service, &ann, all("bob")).await.unwrap_err().reason(), Reason::PermissionDenied);
    let everybody = ListKeysRequest { all_users: true, page_size: 3, ..Default::default() };
    assert_eq!(list(&service, &ann, everybody.clone()).await.unwrap_err().reason(), Reason::PermissionDenied);
    let page = message_of(keys(&service).list_keys(with_token(everybody.clone(), &admin)).await).unwrap();
    let rest = ListKeysRequest { page_token: page.next_page_token.clone(), ..everybody };
    assert_eq!((page.keys.len(), page.next_page_token.is_empty()), (3, false));
    let rest = message_of(keys(&service).list_keys(with_token(rest, &admin)).await).unwrap();
    assert_eq!((rest.keys.len(), rest.next_page_token.as_str()), (1, ""));

    let get = |token: &str| {
        let request = with_token(GetKeyRequest { id: key.id.clone() }, token);
        let mut keys = keys(&service);
        async move { message_of(keys.get_key(request).await).map(|response| response.key.unwrap()) }
    };
    assert_eq!(get(&ann).await.unwrap_err().reason(), Reason::NoSuchKey);
    assert_eq!(delete(&service, &ann, &key.id).await.unwrap_err().reason(), Reason::NoSuchKey);
    let of_bob = CreateKeyRequest { username: "bob".to_owned(), ..named("a") };
    assert_eq!(create(&service, &ann, of_bob).await.unwrap_err().reason(), Reason::PermissionDenied);
    assert_eq!(get(&bob).await.unwrap(), key);
    // A key in the place of its id.
    let error = delete(&service, &bob, &text).await.unwrap_err();
    assert_eq!(error.reason(), Reason::NoSuchKey);
    assert!(!error.message().contains(&text[18..]));

    let uses = |day, origin: &str| {
        let id = key.id.parse::<KeyId>().unwrap().number();
        ReportKeyUseRequest { uses: vec![KeyUse { id, day, origin: origin.to_owned() }] }
    };
    let mut reports = service.revocations();
    reports.report_key_use(uses(86_400, "192.0.2.0/24")).await.unwrap();
    reports.report_key_use(uses(i64::MAX, "203.0.113.0/24")).await.unwrap();
    let used = get(&admin).await.unwrap();
    assert_eq!((used.last_used_day, used.last_used_from.as_str()), (86_400, "192.0.2.0/24"));
    delete(&service, &admin, &key.id).await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn keys_outlive_a_restart_and_other_signing_keys() {
    let (_folder, mut config) = folder();
    let service = Service::start(&config).await;
    let (admin, _) = service.tokens().await;
    let (key, text) = create(&service, &admin, named("a")).await.unwrap();
    service.stop().await;
    config.secret = Some(SecretString::from("another secret of some length"));
    let service = Service::start(&config).await;
    assert_eq!(describe(&service, &text).await.unwrap(), key);
    let shutdown = CancellationToken::new();
    assert_eq!(reason(&follower(&service, &shutdown).await, &text), None);
    shutdown.cancel();
    service.stop().await;
    let operator = admin_ops(&config).await;
    assert_eq!(operator.users().unwrap().list().await.unwrap()[0].role, Role::Admin);
    operator.close().await;
}
