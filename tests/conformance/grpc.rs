//! Errors are equal over both protocols: REST and gRPC return the same reason and message.

use muse_proto::{
    Error, Reason,
    v1::{
        EmbedRequest, LoginRequest, RefreshTokenRequest, RevokeTokenRequest, TokenizeRequest,
        auth_service_client::AuthServiceClient, embedder_service_client::EmbedderServiceClient,
    },
};
use muse_tests::{channel, http_client::HttpResponse};
use serde_json::{Value, json};
use tonic::{Request, Status};

use super::{target::Target, wire};

/// The value of `Authorization`, if any, the reason of the error, and its message, or an empty text
/// for any message.
type RejectedCase = (Option<&'static str>, Reason, &'static str);

const MISSING: &str = "Missing Authorization Header";
const NO_BEARER: &str =
    "Missing 'Bearer' type in 'Authorization' header. Expected 'Authorization: Bearer <JWT>'";
const BAD_FORM: &str = "Bad Authorization header. Expected 'Authorization: Bearer <JWT>'";

/// For all methods that need a token.
const ALL_METHODS: [RejectedCase; 9] = [
    (None, Reason::TokenMissing, MISSING),
    (Some(""), Reason::TokenMissing, MISSING),
    (Some("Basic YWRtaW46YWRtaW4="), Reason::TokenMissing, NO_BEARER),
    (Some("garbage"), Reason::TokenMissing, NO_BEARER),
    (Some("Bearer"), Reason::TokenMalformed, BAD_FORM),
    (Some("Bearer x y"), Reason::TokenMalformed, BAD_FORM),
    (Some("Bearer garbage"), Reason::TokenInvalid, ""),
    (Some("Bearer a.b.c"), Reason::TokenInvalid, ""),
    (Some("Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9."), Reason::TokenInvalid, ""),
];

/// For methods that need an access token.
const ACCESS_TOKEN_METHODS: [RejectedCase; 5] = [
    (Some("Bearer {badsig-access}"), Reason::TokenInvalid, "Signature verification failed"),
    (Some("Bearer {expired-access}"), Reason::TokenExpired, "Token has expired"),
    (Some("Bearer {expired-refresh}"), Reason::TokenExpired, "Token has expired"),
    (Some("Bearer {refresh}"), Reason::TokenKind, "Only non-refresh tokens are allowed"),
    (Some("Bearer {revoked-access}"), Reason::TokenRevoked, "Token has been revoked"),
];

/// For methods that need a refresh token.
const REFRESH_TOKEN_METHODS: [RejectedCase; 5] = [
    (Some("Bearer {badsig-refresh}"), Reason::TokenInvalid, "Signature verification failed"),
    (Some("Bearer {expired-refresh}"), Reason::TokenExpired, "Token has expired"),
    (Some("Bearer {access}"), Reason::TokenKind, "Only refresh tokens are allowed"),
    (Some("Bearer {revoked-access}"), Reason::TokenKind, "Only refresh tokens are allowed"),
    (Some("Bearer {revoked-refresh}"), Reason::TokenRevoked, "Token has been revoked"),
];

#[derive(Debug, Clone, Copy)]
enum Method {
    Embed,
    Tokenize,
    Refresh,
}

impl Method {
    /// Calls the REST route.
    async fn over_rest(self, target: &Target, authorization: Option<&str>) -> HttpResponse {
        let (method, path) = match self {
            Self::Embed => ("GET", "/embed?sentence=Hi"),
            Self::Tokenize => ("GET", "/tokenize?sentence=Hi"),
            Self::Refresh => ("POST", "/token/refresh"),
        };
        let headers: Vec<(&str, &str)> =
            authorization.map(|value| ("Authorization", value)).into_iter().collect();
        wire::send(target.address, &wire::request(method, path, &headers, None)).await
    }

    /// Calls the gRPC method.
    async fn over_grpc(self, target: &Target, authorization: Option<&str>) -> Result<(), Status> {
        let channel = channel(target.address);
        let sentences = vec!["Hi".to_owned()];
        match self {
            Self::Embed => {
                let message = EmbedRequest { sentences, ..EmbedRequest::default() };
                EmbedderServiceClient::new(channel).embed(with(authorization, message)).await.map(drop)
            }
            Self::Tokenize => {
                let message = TokenizeRequest { sentences };
                EmbedderServiceClient::new(channel).tokenize(with(authorization, message)).await.map(drop)
            }
            Self::Refresh => {
                let message = RefreshTokenRequest {};
                AuthServiceClient::new(channel).refresh_token(with(authorization, message)).await.map(drop)
            }
        }
    }
}

fn with<T>(authorization: Option<&str>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(value) = authorization {
        request.metadata_mut().insert("authorization", value.parse().expect("it is ASCII"));
    }
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn token_errors_are_equal_over_both_protocols() {
    let mut target = Target::start().await;
    let mut counts = (0, 0);
    for (method, cases) in [
        (Method::Embed, &ACCESS_TOKEN_METHODS),
        (Method::Tokenize, &ACCESS_TOKEN_METHODS),
        (Method::Refresh, &REFRESH_TOKEN_METHODS),
    ] {
        for (template, reason, text) in ALL_METHODS.iter().chain(cases) {
            let authorization = match template {
                None => None,
                Some(template) => match target.fill(template).await {
                    Some(filled) => Some(filled),
                    None => {
                        counts.1 += 1;
                        continue;
                    }
                },
            };
            let rejected =
                method.over_grpc(&target, authorization.as_deref()).await.expect_err("it is rejected");
            let error = Error::from(&rejected);
            let case = format!("{method:?} with {template:?}");
            assert_eq!((rejected.code(), error.reason()), (reason.code(), *reason), "{case}: {rejected}");
            let answer = method.over_rest(&target, authorization.as_deref()).await;
            assert_eq!(answer.status.as_u16(), reason.http_status(), "{case}");
            assert_eq!(answer.json(), json!({ "msg": error.message() }), "{case}");
            assert!(text.is_empty() || error.message() == *text, "{case}: {rejected}");
            counts.0 += 1;
        }
        let kind = if matches!(method, Method::Refresh) { "refresh" } else { "access" };
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let authorization = target.fill(&format!("{scheme} {{{kind}}}")).await;
            method.over_grpc(&target, authorization.as_deref()).await.expect("it is accepted");
            assert_eq!(method.over_rest(&target, authorization.as_deref()).await.status, 200);
        }
    }
    println!("both protocols: {} cases pass, {} left out", counts.0, counts.1);
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_and_login_errors_are_equal_over_both_protocols() {
    let mut target = Target::start().await;
    let authorization = target.fill("Bearer {access}").await.expect("a token");
    let lines = vec!["a"; 4097];
    let long = "x".repeat(262_145);
    for sentences in [lines, vec!["a", long.as_str()]] {
        let owned = sentences.iter().map(|&text| text.to_owned()).collect();
        let message = EmbedRequest { sentences: owned, ..EmbedRequest::default() };
        let call = with(Some(&authorization), message);
        let rejected =
            EmbedderServiceClient::new(channel(target.address)).embed(call).await.expect_err("too large");
        let error = Error::from(&rejected);
        assert_eq!(error.reason(), Reason::TooLarge);

        let body = json!({ "sentence": sentences }).to_string();
        let headers = [("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
        let request = wire::request("POST", "/embed", &headers, Some(&body));
        let answer = wire::send(target.address, &request).await;
        assert_eq!(answer.status, 413);
        // The message over HTTP also contains a remedy.
        let text = answer.text_of("message");
        assert!(text.starts_with(&format!("{}; ", error.message())), "{text}");
    }

    // A separate name, because of login throttling.
    let login = LoginRequest { username: "nobody".to_owned(), password: "wrong".to_owned() };
    let rejected =
        AuthServiceClient::new(channel(target.address)).login(login).await.expect_err("no such user");
    assert_eq!(Error::from(&rejected), Error::new(Reason::BadCredentials, "Unauthorized"));
    let request = wire::request("POST", "/login?username=nobody&password=wrong", &[], None);
    let answer = wire::send(target.address, &request).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (401, json!({ "msg": "Unauthorized" })));
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_over_one_protocol_applies_to_the_other() {
    let mut target = Target::start().await;
    let revoked: Value = json!({ "msg": "Token has been revoked" });
    let authorization = target.fill("Bearer {access}").await;
    let call = with(authorization.as_deref(), RevokeTokenRequest {});
    AuthServiceClient::new(channel(target.address)).revoke_token(call).await.expect("it is ours");
    assert_eq!(Method::Embed.over_rest(&target, authorization.as_deref()).await.json(), revoked);

    target.forget_pair();
    let authorization = target.fill("Bearer {access}").await.expect("a token");
    let request = wire::request("POST", "/logout/access", &[("Authorization", &authorization)], None);
    assert_eq!(wire::send(target.address, &request).await.status, 200);
    let rejected = Method::Embed.over_grpc(&target, Some(&authorization)).await.expect_err("it is revoked");
    assert_eq!(Error::from(&rejected).reason(), Reason::TokenRevoked);
    target.stop().await;
}
