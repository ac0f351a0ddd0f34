//! The gRPC services through the gateway: who may call what, what revocation does, and what bad input gets.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use muse_proto::{
    Error, Reason,
    v1::{
        AddUserRequest, EmbedRequest, GetJwksRequest, GetModelRequest, ListUsersRequest, LoginRequest,
        RefreshTokenRequest, RevokeTokenRequest, RevokeUserTokensRequest, Role, TokenizeRequest,
        WatchRevocationsRequest, auth_service_client::AuthServiceClient,
        embedder_service_client::EmbedderServiceClient, revocation_service_client::RevocationServiceClient,
    },
};
use muse_tests::{
    PATIENCE, Service, Stack, auth_config, bearing, channel, embedder_config, golden_sentences,
    http_client::HttpClient, login, model_dir, start_auth, start_embedder, start_gateway, wait_until_serving,
};
use tonic::{Code, Request, Status};
use tonic_reflection::pb;

fn reason(status: &Status) -> Reason {
    Error::from(status).reason()
}

fn sentences(texts: &[&str]) -> EmbedRequest {
    EmbedRequest { sentences: texts.iter().map(|text| (*text).to_owned()).collect() }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_but_login_health_and_reflection_needs_a_token() {
    let stack = Stack::start().await;
    let (mut auth, mut embedder) = (stack.auth_client(), stack.embedder_client());
    let refusals = [
        embedder.embed(sentences(&["a"])).await.unwrap_err(),
        embedder.tokenize(TokenizeRequest { sentences: vec!["a".to_owned()] }).await.unwrap_err(),
        embedder.get_model(GetModelRequest {}).await.unwrap_err(),
        auth.get_jwks(GetJwksRequest {}).await.unwrap_err(),
        auth.refresh_token(RefreshTokenRequest {}).await.unwrap_err(),
        auth.revoke_token(RevokeTokenRequest {}).await.unwrap_err(),
        auth.revoke_user_tokens(RevokeUserTokensRequest::default()).await.unwrap_err(),
        stack.user_client().list_users(ListUsersRequest::default()).await.unwrap_err(),
    ];
    for refusal in refusals {
        assert_eq!((refusal.code(), reason(&refusal)), (Code::Unauthenticated, Reason::TokenMissing));
    }
    let tokens = stack.login().await;
    let refused = embedder.embed(bearing(&tokens.refresh_token, sentences(&["a"]))).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::TokenKind);
    let refused =
        auth.refresh_token(bearing(&tokens.access_token, RefreshTokenRequest {})).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::TokenKind);
    let jwks = auth.get_jwks(bearing(&tokens.access_token, GetJwksRequest {})).await.unwrap().into_inner();
    assert_eq!(jwks.keys[0].alg, "EdDSA");

    let wrong = LoginRequest { username: "admin".to_owned(), password: "nimda".to_owned() };
    let refused = auth.login(wrong).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused)), (Code::Unauthenticated, Reason::BadCredentials));

    // What is not for users is not here at all.
    let mut revocations = RevocationServiceClient::new(stack.channel());
    let call = bearing(&tokens.access_token, WatchRevocationsRequest::default());
    assert_eq!(revocations.watch_revocations(call).await.unwrap_err().code(), Code::Unimplemented);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_refused_at_once_on_both_protocols() {
    let stack = Stack::start().await;
    let (mut auth, mut embedder) = (stack.auth_client(), stack.embedder_client());
    let rest = HttpClient::new(stack.gateway.address);
    for _ in 0..20 {
        let tokens = stack.login().await;
        let access = tokens.access_token.as_str();
        embedder.embed(bearing(access, sentences(&["a"]))).await.unwrap();
        auth.revoke_token(bearing(access, RevokeTokenRequest {})).await.unwrap();
        let refused = embedder.embed(bearing(access, sentences(&["a"]))).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::TokenRevoked);
        assert_eq!(rest.get("/embed?sentence=a", access).await.status, 401);

        // The other token of the pair still holds.
        let again = auth.refresh_token(bearing(&tokens.refresh_token, RefreshTokenRequest {})).await.unwrap();
        let access = again.into_inner().access_token;
        assert_eq!(rest.post("/logout/access", &access).await.status, 200);
        let refused = embedder.embed(bearing(&access, sentences(&["a"]))).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::TokenRevoked);
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedder_checks_tokens_itself() {
    let stack = Stack::start().await;
    let tokens = stack.login().await;
    let mut embedder = EmbedderServiceClient::new(channel(stack.embedder.address));
    for refused in [
        embedder.embed(sentences(&["a"])).await.unwrap_err(),
        embedder.tokenize(TokenizeRequest { sentences: vec!["a".to_owned()] }).await.unwrap_err(),
        embedder.get_model(GetModelRequest {}).await.unwrap_err(),
    ] {
        assert_eq!(reason(&refused), Reason::TokenMissing);
    }
    let refused = embedder.embed(bearing(&tokens.refresh_token, sentences(&["a"]))).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::TokenKind);
    embedder.embed(bearing(&tokens.access_token, sentences(&["a"]))).await.unwrap();

    stack.auth_client().revoke_token(bearing(&tokens.access_token, RevokeTokenRequest {})).await.unwrap();
    let refused = until_refused(&tokens.access_token, stack.embedder.address).await;
    assert_eq!(reason(&refused), Reason::TokenRevoked);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_reaches_every_gateway_and_the_embedder() {
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
            assert_eq!(reason(&until_refused(&token, address).await), Reason::TokenRevoked);
        }
    }
    let token = stack.login().await.access_token;
    for address in everywhere {
        embed(&token, address).await.unwrap();
    }
    second.stop().await;
    stack.stop().await;
}

/// Embeds at an address until that is refused.
async fn until_refused(token: &str, address: SocketAddr) -> Status {
    let mut embedder = EmbedderServiceClient::new(channel(address));
    let refusal = async {
        loop {
            match embedder.embed(bearing(token, sentences(&["a"]))).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(refused) => return refused,
            }
        }
    };
    tokio::time::timeout(PATIENCE, refusal).await.expect("it is refused in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn admins_manage_users_and_others_do_not() {
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
    let refused = users.add_user(bearing(&admin, maria.clone())).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused)), (Code::AlreadyExists, Reason::UserExists));

    let login = LoginRequest { username: maria.username, password: maria.password };
    let tokens = stack.auth_client().login(login).await.unwrap().into_inner();
    let call = bearing(&tokens.access_token, ListUsersRequest::default());
    let refused = users.list_users(call).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused)), (Code::PermissionDenied, Reason::PermissionDenied));
    let listed = users.list_users(bearing(&admin, ListUsersRequest::default())).await.unwrap().into_inner();
    assert_eq!(
        listed.users.iter().map(|user| user.username.as_str()).collect::<Vec<_>>(),
        ["admin", "maria"]
    );

    let all = RevokeUserTokensRequest { username: "maria".to_owned() };
    stack.auth_client().revoke_user_tokens(bearing(&admin, all)).await.unwrap();
    for address in [stack.gateway.address, stack.embedder.address] {
        let refused = until_refused(&tokens.access_token, address).await;
        assert_eq!(reason(&refused), Reason::TokenRevoked);
    }
    stack.embedder_client().embed(bearing(&admin, sentences(&["a"]))).await.unwrap();
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_auth_away_tokens_hold_for_a_while_and_again_when_it_is_back() {
    let data = tempfile::tempdir().unwrap();
    let auth = start_auth(auth_config(data.path())).await;
    let address = auth.address;
    let embedder = start_embedder(&model_dir(), address, &[]).await;
    let gateway = start_gateway(address, embedder.address, &["--max-staleness", "3"]).await;
    wait_until_serving(channel(gateway.address)).await;
    let token = login(channel(gateway.address)).await.access_token;
    let mut client = EmbedderServiceClient::new(channel(gateway.address));
    let rest = HttpClient::new(gateway.address);
    auth.stop().await;

    client.embed(bearing(&token, sentences(&["a"]))).await.unwrap();
    let request = LoginRequest { username: "admin".to_owned(), password: "admin".to_owned() };
    let refused = AuthServiceClient::new(channel(gateway.address)).login(request).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused)), (Code::Unavailable, Reason::Unavailable));
    assert!(Error::from(&refused).retry_after().is_some(), "{refused}");
    let answer = rest.send("POST", "/login?username=admin&password=admin", &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "1"));
    assert!(answer.json()["message"].is_string());

    let refused = until_refused(&token, gateway.address).await;
    assert_eq!((refused.code(), reason(&refused)), (Code::Unavailable, Reason::Unavailable));
    assert!(refused.message().contains("for too long"), "{refused}");
    let answer = rest.get("/embed?sentence=a", &token).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "1"));

    let config = auth_config(data.path());
    let auth =
        Service::start_at(address, |listener, shutdown| muse_auth::run(config, listener, shutdown)).await;
    let back = async {
        while client.embed(bearing(&token, sentences(&["a"]))).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, back).await.unwrap();
    login(channel(gateway.address)).await;
    gateway.stop().await;
    embedder.stop().await;
    auth.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_revocations_and_keys_outlive_a_restart() {
    let stack = Stack::start().await;
    let (kept, revoked) = (stack.login().await.access_token, stack.login().await.access_token);
    stack.auth_client().revoke_token(bearing(&revoked, RevokeTokenRequest {})).await.unwrap();
    let Stack { data, auth, embedder, gateway } = stack;
    gateway.stop().await;
    auth.stop().await;

    let auth = start_auth(auth_config(data.path())).await;
    let gateway = start_gateway(auth.address, embedder.address, &[]).await;
    let stack = Stack { data, auth, embedder, gateway };
    stack.wait_until_ready().await;
    let mut client = stack.embedder_client();
    client.embed(bearing(&kept, sentences(&["a"]))).await.unwrap();
    let refused = client.embed(bearing(&revoked, sentences(&["a"]))).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::TokenRevoked);
    stack.login().await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_get_their_reason_and_the_service_goes_on() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let mut client = stack.embedder_client();
    let million = "x".repeat(1_000_000);
    let cases: [(EmbedRequest, Reason, &str); 4] = [
        (sentences(&[]), Reason::InvalidArgument, "at least one sentence"),
        (sentences(&vec!["a"; 10_000]), Reason::TooLarge, "10000 sentences; the limit is 4096"),
        (sentences(&["a", &million]), Reason::TooLarge, "sentences[1]: 1000000 bytes; the limit is 262144"),
        (
            sentences(&["한 ".repeat(20_000).as_str()]),
            Reason::TooLarge,
            "tokens; the limit is 8192 a sentence",
        ),
    ];
    for (request, why, text) in cases {
        let refused = client.embed(bearing(&token, request)).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused)), (Code::InvalidArgument, why));
        assert!(refused.message().contains(text), "{refused}");
    }
    let beyond = EmbedRequest { sentences: vec!["x".repeat(200_000); 100] };
    let refused = client.embed(bearing(&token, beyond)).await.unwrap_err();
    assert!(refused.message().contains(&(16 << 20).to_string()), "{refused}");

    // What looks odd but is text has a vector.
    let odd = sentences(&["", "   ", "a\0b", "\u{fffd}", "\u{10ffff}"]);
    assert_eq!(client.embed(bearing(&token, odd)).await.unwrap().into_inner().embeddings.len(), 5);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_sentence_and_a_large_request_are_served_whole() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let mut client = stack.embedder_client();
    let long = "word ".repeat(8_000);
    let answer = client.embed(bearing(&token, sentences(&[&long, "a"]))).await.unwrap().into_inner();
    assert_eq!(answer.embeddings.len(), 2);
    let many = EmbedRequest { sentences: (0..4_096).map(|n| format!("sentence {n}")).collect() };
    let answer = client.embed(bearing(&token, many)).await.unwrap().into_inner();
    assert_eq!(answer.embeddings.len(), 4_096);
    let one = client.embed(bearing(&token, sentences(&["sentence 4095"]))).await.unwrap().into_inner();
    let difference =
        muse_tests::largest_difference(&one.embeddings[0].values, &answer.embeddings[4_095].values);
    assert!(difference <= 1e-5, "{difference}");
    stack.stop().await;
}

/// Sends bytes that no generated client would.
async fn raw_call(stack: &Stack, token: &str, message: &[u8]) -> Status {
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).expect("a short message").to_be_bytes());
    framed.extend_from_slice(message);
    let request = http::Request::post("/muse.v1.EmbedderService/Embed")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {token}"))
        .body(tonic::body::Body::new(Full::new(Bytes::from(framed))))
        .expect("the request is well-formed");
    let mut channel = stack.channel();
    std::future::poll_fn(|cx| tonic::codegen::Service::<http::Request<_>>::poll_ready(&mut channel, cx))
        .await
        .expect("the gateway is there");
    let response = tonic::codegen::Service::call(&mut channel, request).await.expect("it answers");
    if let Some(status) = Status::from_header_map(response.headers()) {
        return status;
    }
    let trailers = response
        .into_body()
        .collect()
        .await
        .expect("the body is whole")
        .trailers()
        .cloned()
        .unwrap_or_default();
    Status::from_header_map(&trailers).expect("there is a status")
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_utf8_is_the_caller_s_fault() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    for malformed in [&b"\x0a\x02\xff\xfe"[..], &b"\x0a\x7f"[..], &b"\xff\xff\xff"[..]] {
        let status = raw_call(&stack, &token, malformed).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    assert_eq!(raw_call(&stack, &token, b"\x0a\x01a").await.code(), Code::Ok);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_others_and_expired_ones_are_refused() {
    let stack =
        Stack::start_with(&model_dir(), |auth| auth.access_token_lifetime = Duration::from_secs(1)).await;
    let other = Stack::start().await;
    let mut client = stack.embedder_client();
    let foreign = other.login().await.access_token;
    let refused = client.embed(bearing(&foreign, sentences(&["a"]))).await.unwrap_err();
    assert_eq!(
        (reason(&refused), refused.message()),
        (Reason::TokenInvalid, "Signature verification failed")
    );

    let short = stack.login().await.access_token;
    let expiry = async {
        loop {
            match client.embed(bearing(&short, sentences(&["a"]))).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(refused) => return refused,
            }
        }
    };
    let refused = tokio::time::timeout(PATIENCE, expiry).await.unwrap();
    assert_eq!((reason(&refused), refused.message()), (Reason::TokenExpired, "Token has expired"));
    other.stop().await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_tells_the_services_in_both_versions() {
    let stack = Stack::start().await;
    let wanted =
        ["grpc.health.v1.Health", "muse.v1.AuthService", "muse.v1.EmbedderService", "muse.v1.UserService"];
    macro_rules! services {
        ($version:ident) => {{
            use pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };
            let list = MessageRequest::ListServices(String::new());
            let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
            let mut client = ServerReflectionClient::new(stack.channel());
            let asked = futures::stream::iter([request]);
            let mut answers = client.server_reflection_info(Request::new(asked)).await.unwrap().into_inner();
            match answers.message().await.unwrap().unwrap().message_response {
                Some(MessageResponse::ListServicesResponse(list)) => {
                    list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
                }
                other => panic!("{other:?}"),
            }
        }};
    }
    for names in [services!(v1), services!(v1alpha)] {
        for name in wanted {
            assert!(names.iter().any(|listed| listed == name), "{name} is not in {names:?}");
        }
        assert!(names.iter().all(|listed| listed != "muse.v1.RevocationService"), "{names:?}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_embedder_away_calls_fail_soon_and_work_again_when_it_is_back() {
    let Stack { data, auth, embedder, gateway } = Stack::start().await;
    let address = embedder.address;
    embedder.stop().await;
    let mut client = EmbedderServiceClient::new(channel(gateway.address));
    let token = login(channel(gateway.address)).await.access_token;
    let refused = client.embed(bearing(&token, sentences(&["a"]))).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused)), (Code::Unavailable, Reason::Unavailable));
    let rest = HttpClient::new(gateway.address);
    let answer = rest.get("/embed?sentence=a", &token).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "1"));

    let config = embedder_config(&model_dir(), auth.address, &[]);
    let embedder =
        Service::start_at(address, |listener, shutdown| muse_embedder::run(config, listener, shutdown)).await;
    let stack = Stack { data, auth, embedder, gateway };
    stack.wait_until_ready().await;
    client.embed(bearing(&token, sentences(&["a"]))).await.unwrap();
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_drains() {
    let data = tempfile::tempdir().unwrap();
    let auth = start_auth(auth_config(data.path())).await;
    let embedder = start_embedder(&model_dir(), auth.address, &["--queue-tokens", "4000"]).await;
    wait_until_serving(channel(embedder.address)).await;
    let token = login(channel(auth.address)).await.access_token;
    let request = EmbedRequest { sentences: vec!["one two three four five six".to_owned(); 400] };
    let calls = (0..16).map(|_| {
        let mut client = EmbedderServiceClient::new(channel(embedder.address));
        let request = bearing(&token, request.clone());
        async move { client.embed(request).await }
    });
    let outcomes = futures::future::join_all(calls).await;
    let served = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert!((1..16).contains(&served), "{served} of 16 were served");
    for refused in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert_eq!((refused.code(), reason(refused)), (Code::ResourceExhausted, Reason::Overloaded));
    }
    let mut client = EmbedderServiceClient::new(channel(embedder.address));
    client.embed(bearing(&token, request)).await.unwrap();
    embedder.stop().await;
    auth.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_go_leave_the_service_well() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let texts: Vec<String> = golden_sentences().into_iter().map(|line| line.text).collect();
    for _ in 0..20 {
        let mut client = stack.embedder_client();
        let call = client.embed(bearing(&token, EmbedRequest { sentences: texts.clone() }));
        let _ = tokio::time::timeout(Duration::from_millis(5), call).await;
    }
    let answer = stack.embedder_client().embed(bearing(&token, sentences(&["a"]))).await.unwrap();
    assert_eq!(answer.into_inner().embeddings.len(), 1);
    stack.stop().await;
}
