//! The audit log of calls that fail.

use muse_tests::until;
use serde_json::Value;

use crate::Services;

#[tokio::test(flavor = "multi_thread")]
async fn failed_revocation_of_all_tokens_is_in_the_audit_log() {
    let services = Services::start(&[]).await;
    let authorization = format!("Bearer {}", services.log_in().await);
    let headers = [("authorization", &*authorization), ("x-request-id", "revoke-1")];
    let answer = services.http.send("DELETE", "/api/users/nobody/tokens", &headers, "").await;
    assert_eq!(answer.status, 404);
    let is_audit = |line: &Value| line["target"] == "audit";
    let line = until(async || services.lines_of("revoke-1").into_iter().find(is_audit)).await;
    let fields = ["action", "by", "user", "outcome"].map(|field| line[field].as_str().unwrap_or_default());
    assert_eq!(fields, ["revoke all tokens", "admin", "nobody", "NO_SUCH_USER"], "{line}");
}
