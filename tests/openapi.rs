//! The OpenAPI document, and the conformance of the service to it.

use std::fs;

use muse_tests::{Stack, http_client::HttpClient, root, sdk_program};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn openapi_document_and_swagger_ui_are_served() {
    let stack = Stack::start().await;
    let http = HttpClient::new(stack.gateway.address);
    let expected = fs::read_to_string(root().join("gateway/openapi.json")).expect("it is checked in");
    let expected: Value = serde_json::from_str(&expected).expect("it is JSON");
    let answer = http.send("GET", "/openapi.json", &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/json"));
    assert_eq!(answer.json(), expected);
    assert_eq!(expected["openapi"], json!("3.1.0"));

    let answer = http.send("GET", "/docs", &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (308, "/docs/"));
    let page = http.send("GET", "/docs/", &[], "").await;
    let text = String::from_utf8_lossy(&page.body).into_owned();
    let sources = text.split("src=\"").chain(text.split("href=\"")).filter_map(|rest| rest.split_once('"'));
    let mut files = 0;
    for (source, _) in sources.filter(|(source, _)| source.starts_with("./")) {
        let file = http.send("GET", &format!("/docs/{}", &source[2..]), &[], "").await;
        assert_eq!(file.status, 200, "{source}");
        assert!(!file.body.is_empty(), "{source}");
        files += 1;
    }
    assert!(files >= 5, "{text}");
    let start = http.send("GET", "/docs/swagger-initializer.js", &[], "").await;
    assert!(String::from_utf8_lossy(&start.body).contains("\"/openapi.json\""));
    assert_eq!(http.send("GET", "/docs/nothing.js", &[], "").await.status, 404);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn service_conforms_to_its_openapi_document() {
    let stack = Stack::start().await;
    let tokens = stack.login().await;
    let http = HttpClient::new(stack.gateway.address);
    let key = json!({ "name": "schemathesis" });
    let key = http.json("POST", "/api/keys", &tokens.access_token, &key).await.text_of("key");
    let gateway = format!("http://{}", stack.gateway.address);
    let status = sdk_program("schemathesis")
        .args(["--no-color", "--config-file", "tests/sdks/schemathesis.toml", "run"])
        .arg(format!("{gateway}/openapi.json"))
        // The path of the hooks module.
        .env("PYTHONPATH", root())
        .env("GATEWAY", &gateway)
        .env("ACCESS_TOKEN", tokens.access_token)
        .env("REFRESH_TOKEN", tokens.refresh_token)
        .env("API_KEY", key)
        .status()
        .await
        .expect("schemathesis starts");
    assert!(status.success(), "{status}");
    stack.stop().await;
}
