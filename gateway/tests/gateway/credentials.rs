//! Requests without a credential to every route and method.

use http::{StatusCode, uri::PathAndQuery};
use muse_proto::{
    Codec, Error, METHODS, Reason,
    v1::{EmbedRequest, EmbedResponse},
};
use serde_json::Value;
use tonic::{Code, Request, Status, client::Grpc};

use crate::harness::{Backend, Gateway, token};

/// Public routes and methods.
const PUBLIC_OPERATIONS: [(&str, &str); 5] = [
    ("post", "/login"),
    ("post", "/logout"),
    ("get", "/.well-known/jwks.json"),
    ("get", "/openapi.json"),
    ("get", "/api/ready"),
];
const PUBLIC_METHODS: [&str; 1] = ["/muse.v1.AuthService/Login"];

fn operations() -> Vec<(String, String)> {
    let document: Value = serde_json::from_str(include_str!("../../openapi.json")).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, methods)| {
        methods.as_object().unwrap().keys().map(move |method| (method.clone(), path.clone()))
    });
    operations.collect()
}

#[tokio::test]
async fn http_route_without_a_credential_is_rejected() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &[]).await;
    let operations = operations();
    assert!(operations.len() > PUBLIC_OPERATIONS.len());
    for (method, path) in operations {
        let is_public = PUBLIC_OPERATIONS.contains(&(&*method, &*path));
        let target = path.replace("{model}", "any").replace("{id}", "any").replace("{name}", "any");
        let response = gateway.send(&method.to_uppercase(), &target, &[]).await;
        assert_eq!(
            response.status == StatusCode::UNAUTHORIZED,
            !is_public,
            "{method} {path}: {}",
            response.status
        );
        if !is_public {
            let takes_refresh = ["/logout/refresh", "/token/refresh"].contains(&&*path);
            let other_kind = token(if takes_refresh { "access" } else { "refresh" }, "someone", None);
            let response = gateway.send_as(&other_kind, &method.to_uppercase(), &target).await;
            let rejected = [StatusCode::UNAUTHORIZED, StatusCode::UNPROCESSABLE_ENTITY];
            assert!(rejected.contains(&response.status), "{method} {path}: {}", response.status);
        }
    }
}

#[tokio::test]
async fn grpc_method_without_a_credential_is_unauthenticated() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &[]).await;
    let served = METHODS.iter().filter(|method| !method.contains("RevocationService"));
    // A method that the proto does not have (yet).
    let unknown =
        ["/muse.v1.AuthService/Added", "/muse.v1.EmbedderService/Added", "/muse.v1.UserService/Added"];
    for method in served.chain(&unknown) {
        let status = call(&gateway, method).await;
        let is_public = PUBLIC_METHODS.contains(method);
        assert_eq!(status.code() == Code::Unauthenticated, !is_public, "{method}: {status}");
        if !is_public {
            assert_eq!(Error::from(&status).reason(), Reason::TokenMissing, "{method}");
        }
    }
}

/// The status of a call with an empty message and no metadata.
async fn call(gateway: &Gateway, method: &'static str) -> Status {
    let mut client = Grpc::new(gateway.channel());
    client.ready().await.unwrap();
    let codec = Codec::<EmbedRequest, EmbedResponse>::default();
    match client.unary(Request::new(EmbedRequest::default()), PathAndQuery::from_static(method), codec).await
    {
        Ok(_) => Status::ok(""),
        Err(status) => status,
    }
}
