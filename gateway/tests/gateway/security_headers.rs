//! Security headers of responses.

use crate::{
    harness::{Backend, Gateway, token},
    login,
};

#[tokio::test]
async fn responses_have_security_headers() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &["--trusted-proxies", "127.0.0.1"]).await;
    let authorization = format!("Bearer {}", token("access", "a", None));
    for (method, target, cache) in [
        ("POST", "/login?username=a&password=x", "no-store"),
        ("POST", "/token/refresh", "no-store"),
        ("GET", "/embed?sentence=a", "no-store"),
        ("GET", "/v1/models", "no-store"),
        ("GET", "/nothing", "no-store"),
        ("GET", "/.well-known/jwks.json", "public, max-age=60"),
        ("GET", "/openapi.json", ""),
        ("GET", "/docs/", ""),
        ("GET", "/", "no-cache"),
    ] {
        let headers = [("authorization", &*authorization), ("x-forwarded-proto", "https")];
        for (headers, only_tls) in [(&headers[..1], ""), (&headers[..], "max-age=31536000")] {
            let response = gateway.send(method, target, headers).await;
            let header = |name| response.header(name);
            assert_eq!(header("x-content-type-options"), "nosniff", "{target}");
            assert_eq!(header("referrer-policy"), "no-referrer", "{target}");
            assert_eq!(header("x-frame-options"), "DENY", "{target}");
            assert_eq!(header("cache-control"), cache, "{target}");
            assert_eq!(header("strict-transport-security"), only_tls, "{target}");
            let policy = header("content-security-policy");
            assert!(
                policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
                "{target}"
            );
            assert_eq!(policy.contains("script-src 'self'"), ["/docs/", "/"].contains(&target), "{target}");
        }
    }
    let call = gateway.auth().login(login("a")).await.unwrap();
    assert!(!call.metadata().contains_key("content-security-policy"), "browsers do not display gRPC");
}
