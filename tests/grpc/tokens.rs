//! Authorization of calls, and revocation.

use std::{net::SocketAddr, time::Duration};

use muse_proto::{
    Reason,
    v1::{
        AddUserRequest, GetJwksRequest, GetModelRequest, ListUsersRequest, LoginRequest, RefreshTokenRequest,
        RevokeTokenRequest, RevokeUserTokensRequest, Role, TokenizeRequest, WatchRevocationsRequest,
        embedder_service_client::EmbedderServiceClient, revocation_service_client::RevocationServiceClient,
    },
};
use muse_tests::{
    Stack, auth_config, bearing, channel, http_client::HttpClient, model_dir, start_auth, start_gateway,
    until, wait_until_serving,
};
use tonic::{Code, Status};

use crate::{reason, sentences};

#[tokio::test(flavor = "multi_thread")]
async fn calls_except_login_health_and_reflection_need_a_token() {
    let stack = Stack::start().await;
    let (mut auth, mut embedder) = (stack.auth_client(), stack.embedder_client());
    let rejections = [
        embedder.embed(sentences(&["a"])).await.unwrap_err(),
        embedder.tokenize(TokenizeRequest { sentences: vec!["a".to_owned()] }).await.unwrap_err(),
        embedder.get_model(GetModelRequest {}).await.unwrap_err(),
        auth.get_jwks(GetJwksRequest {}).await.unwrap_err(),
        auth.refresh_token(RefreshTokenRequest {}).await.unwrap_err(),
        auth.revoke_token(RevokeTokenRequest {}).await.unwrap_err(),
        auth.revoke_user_tokens(RevokeUserTokensRequest::default()).await.unwrap_err(),
        stack.user_client().list_users(ListUsersRequest::default()).await.unwrap_err(),
    ];
    for rejection in rejections {
        assert_eq!((rejection.code(), reason(&rejection)), (Code::Unauthenticated, Reason::TokenMissing));
    }
    let tokens = stack.login().await;
    let rejected = embedder.embed(bearing(&tokens.refresh_token, sentences(&["a"]))).await.unwrap_err();
    assert_eq!(reason(&rejected), Reason::TokenKind);
    let rejected =
        auth.refresh_token(bearing(&tokens.access_token, RefreshTokenRequest {})).await.unwrap_err();
    assert_eq!(reason(&rejected), Reason::TokenKind);
    let jwks = auth.get_jwks(bearing(&tokens.access_token, GetJwksRequest {})).await.unwrap().into_inner();
    assert_eq!(jwks.keys[0].alg, "EdDSA");

    let wrong = LoginRequest { username: "admin".to_owned(), password: "nimda".to_owned() };
    let rejected = auth.login(wrong).await.unwrap_err();
    assert_eq!((rejected.code(), reason(&rejected)), (Code::Unauthenticated, Reason::BadCredentials));

    // Internal methods do not exist on the public port.
    let mut revocations = RevocationServiceClient::new(stack.channel());
    let call = bearing(&tokens.access_token, WatchRevocationsRequest::default());
    assert_eq!(revocations.watch_revocations(call).await.unwrap_err().code(), Code::Unimplemented);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_token_is_rejected_at_once_on_both_protocols() {
    let stack = Stack::start().await;
    let (mut auth, mut embedder) = (stack.auth_client(), stack.embedder_client());
    let rest = HttpClient::new(stack.gateway.address);
    for _ in 0..20 {
        let tokens = stack.login().await;
        let access = tokens.access_token.as_str();
        embedder.embed(bearing(access, sentences(&["a"]))).await.unwrap();
        auth.revoke_token(bearing(access, RevokeTokenRequest {})).await.unwrap();
        let rejected = embedder.embed(bearing(access, sentences(&["a"]))).await.unwrap_err();
        assert_eq!(reason(&rejected), Reason::TokenRevoked);
        assert_eq!(rest.get("/embed?sentence=a", access).await.status, 401);

        // The other token of the pair remains valid.
        let again = auth.refresh_token(bearing(&tokens.refresh_token, RefreshTokenRequest {})).await.unwrap();
        let access = again.into_inner().access_token;
        assert_eq!(rest.post("/logout/access", &access).await.status, 200);
        let rejected = embedder.embed(bearing(&access, sentences(&["a"]))).await.unwrap_err();
        assert_eq!(reason(&rejected), Reason::TokenRevoked);
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn embedder_verifies_tokens_itself() {
    let stack = Stack::start().await;
    let tokens = stack.login().await;
    let mut embedder = EmbedderServiceClient::new(channel(stack.embedder.address));
    for rejected in [
        embedder.embed(sentences(&["a"])).await.unwrap_err(),
        embedder.tokenize(TokenizeRequest { sentences: vec!["a".to_owned()] }).await.unwrap_err(),
        embedder.get_model(GetModelRequest {}).await.unwrap_err(),
    ] {
        assert_eq!(reason(&rejected), Reason::TokenMissing);
    }
    let rejected = embedder.embed(bearing(&tokens.refresh_token, sentences(&["a"]))).await.unwrap_err();
    assert_eq!(reason(&rejected), Reason::TokenKind);
    embedder.embed(bearing(&tokens.access_token, sentences(&["a"]))).await.unwrap();

    stack.auth_client().revoke_token(bearing(&tokens.access_token, RevokeTokenRequest {})).await.unwrap();
    let rejected = until_rejected(&tokens.access_token, stack.embedder.address).await;
    assert_eq!(reason(&rejected), Reason::TokenRevoked);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_reaches_every_gateway_and_the_embedder() {
    let stack = Stack::start().await;
    let second = start_gateway(stack.auth.address, stack.embedder.address, &[]).await;
    wait_until_serving(channel(second.address)).await;
    let everywhere = [stack.gateway.address, second.address, stack.embedder.address];
    let embed = async |token: &str, address| {
        EmbedderServiceClient::new(channel(address)).embed(bearing(token, sentences(&["a"]))).await
    };
    let mut auth = stack.auth_client();
    for all_of_the_user in [false, true] {
        let token = stack.login().await.access_token;
        for address in everywhere {
            embed(&token, address).await.unwrap();
        }
        if all_of_the_user {
            auth.revoke_user_tokens(bearing(&token, RevokeUserTokensRequest::default())).await.unwrap();
        } else {
            auth.revoke_token(bearing(&token, RevokeTokenRequest {})).await.unwrap();
        }
        for address in everywhere {
            assert_eq!(reason(&until_rejected(&token, address).await), Reason::TokenRevoked);
        }
    }
    let token = stack.login().await.access_token;
    for address in everywhere {
        embed(&token, address).await.unwrap();
    }
    second.stop().await;
    stack.stop().await;
}

/// Calls Embed at an address until the token is rejected.
pub(crate) async fn until_rejected(token: &str, address: SocketAddr) -> Status {
    let mut embedder = EmbedderServiceClient::new(channel(address));
    until(async || embedder.embed(bearing(token, sentences(&["a"]))).await.err()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_admins_manage_users() {
    let stack = Stack::start().await;
    let admin = stack.login().await.access_token;
    let maria = AddUserRequest {
        username: "maria".to_owned(),
        password: "a long password".to_owned(),
        role: Role::User.into(),
    };
    let mut users = stack.user_client();
    let added = users.add_user(bearing(&admin, maria.clone())).await.unwrap().into_inner().user.unwrap();
    assert_eq!((added.username.as_str(), added.role()), ("maria", Role::User));
    let rejected = users.add_user(bearing(&admin, maria.clone())).await.unwrap_err();
    assert_eq!((rejected.code(), reason(&rejected)), (Code::AlreadyExists, Reason::UserExists));

    let login = LoginRequest { username: maria.username, password: maria.password };
    let tokens = stack.auth_client().login(login).await.unwrap().into_inner();
    let call = bearing(&tokens.access_token, ListUsersRequest::default());
    let rejected = users.list_users(call).await.unwrap_err();
    assert_eq!((rejected.code(), reason(&rejected)), (Code::PermissionDenied, Reason::PermissionDenied));
    let listed = users.list_users(bearing(&admin, ListUsersRequest::default())).await.unwrap().into_inner();
    assert_eq!(
        listed.users.iter().map(|user| user.username.as_str()).collect::<Vec<_>>(),
        ["admin", "maria"]
    );

    let all = RevokeUserTokensRequest { username: "maria".to_owned(), delete_keys: false };
    stack.auth_client().revoke_user_tokens(bearing(&admin, all)).await.unwrap();
    for address in [stack.gateway.address, stack.embedder.address] {
        let rejected = until_rejected(&tokens.access_token, address).await;
        assert_eq!(reason(&rejected), Reason::TokenRevoked);
    }
    stack.embedder_client().embed(bearing(&admin, sentences(&["a"]))).await.unwrap();
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_revocations_and_keys_are_persistent() {
    let stack = Stack::start().await;
    let (valid, revoked) = (stack.login().await.access_token, stack.login().await.access_token);
    stack.auth_client().revoke_token(bearing(&revoked, RevokeTokenRequest {})).await.unwrap();
    let Stack { data, auth, embedder, gateway } = stack;
    gateway.stop().await;
    auth.stop().await;

    let auth = start_auth(auth_config(data.path())).await;
    let gateway = start_gateway(auth.address, embedder.address, &[]).await;
    let stack = Stack { data, auth, embedder, gateway };
    stack.wait_until_ready().await;
    let mut client = stack.embedder_client();
    client.embed(bearing(&valid, sentences(&["a"]))).await.unwrap();
    let rejected = client.embed(bearing(&revoked, sentences(&["a"]))).await.unwrap_err();
    assert_eq!(reason(&rejected), Reason::TokenRevoked);
    stack.login().await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_and_expired_tokens_are_rejected() {
    let stack =
        Stack::start_with(&model_dir(), |auth| auth.access_token_lifetime = Duration::from_secs(1)).await;
    let other = Stack::start().await;
    let mut client = stack.embedder_client();
    let foreign = other.login().await.access_token;
    let rejected = client.embed(bearing(&foreign, sentences(&["a"]))).await.unwrap_err();
    assert_eq!(
        (reason(&rejected), rejected.message()),
        (Reason::TokenInvalid, "Signature verification failed")
    );

    let short = stack.login().await.access_token;
    let rejected = until(async || client.embed(bearing(&short, sentences(&["a"]))).await.err()).await;
    assert_eq!((reason(&rejected), rejected.message()), (Reason::TokenExpired, "Token has expired"));
    other.stop().await;
    stack.stop().await;
}
