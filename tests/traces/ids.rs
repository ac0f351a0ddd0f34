//! Request ids in the logs of all services.

use muse_tests::until;

use crate::Services;

#[tokio::test(flavor = "multi_thread")]
async fn request_id_is_in_the_response_and_in_every_log() {
    let services = Services::start(&[("LOG_LEVEL", "info,access=debug")]).await;
    let answer = services.http.log_in("admin", "admin", &[("x-request-id", "login-1")]).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-request-id")), (200, "login-1"));
    let bearer = format!("Bearer {}", answer.text_of("access_token"));

    // The gateway logs the request, the auth service the call and the login.
    until(async || (services.lines_of("login-1").len() == 3).then_some(())).await;
    let lines = services.lines_of("login-1");
    let of = |target: &str, route: &str| {
        lines
            .iter()
            .find(|line| line["target"] == target && (route.is_empty() || line["route"] == route))
            .cloned()
    };
    let edge = of("access", "/login").expect("the gateway's line");
    let fields =
        ["method", "status", "level", "message"].map(|field| edge[field].as_str().unwrap_or_default());
    assert_eq!(fields, ["POST", "200", "INFO", "answered"]);
    assert!(edge["ms"].as_f64().is_some_and(|ms| ms > 0.0), "{edge}");
    assert_eq!(of("audit", "").expect("the audit log's line")["action"], "log in");
    assert!(of("access", "/muse.v1.AuthService/Login").is_some());

    let headers = [("authorization", &*bearer), ("x-request-id", "embed-1")];
    let answer = services.http.send("GET", "/embed?sentence=a", &headers, "").await;
    assert_eq!(answer.header("x-request-id"), "embed-1");
    until(async || (services.lines_of("embed-1").len() == 2).then_some(())).await;
    for line in services.lines_of("embed-1") {
        assert_eq!(line["span"]["user"], "admin", "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn request_without_a_valid_id_gets_a_generated_id() {
    let services = Services::start(&[]).await;
    let too_long = "x".repeat(129);
    let mut seen = std::collections::HashSet::new();
    for given in ["", "two words", "{\"a\":1}", &too_long] {
        let answer = services.http.send("GET", "/embed?sentence=a", &[("x-request-id", given)], "").await;
        assert_eq!(answer.status, 401);
        let id = answer.header("x-request-id").to_owned();
        assert!(id.len() == 32 && id.bytes().all(|digit| digit.is_ascii_hexdigit()), "{given:?} {id}");
        // The log is written shortly after the response.
        until(async || services.lines_of(&id).pop()).await;
        assert!(seen.insert(id));
    }
    let answer = services.http.send("GET", "/nowhere", &[("x-request-id", "lost")], "").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-request-id")), (404, "lost"));
    let line = until(async || services.lines_of("lost").pop()).await;
    assert_eq!(line["route"], "other");
}
