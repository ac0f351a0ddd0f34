//! `/api/usage`.

use http::StatusCode;
use muse_proto::v1::{
    ListUsageRequest, ListUsageResponse, UsageGrouping, UsageRow, usage_service_server::UsageService,
};
use serde_json::json;
use tonic::{Request, Response, Status};

use crate::harness::{Backend, Gateway, token};

/// The start of 2026-11-29.
const DAY: i64 = 1_795_910_400;

#[tonic::async_trait]
impl UsageService for Backend {
    async fn list_usage(
        &self,
        call: Request<ListUsageRequest>,
    ) -> Result<Response<ListUsageResponse>, Status> {
        let request = self.record_message(call);
        let has_user = request.grouping() != UsageGrouping::Day;
        let row = UsageRow {
            start: DAY,
            username: if has_user { "ann".to_owned() } else { String::new() },
            key_id: if has_user { "q5dmhtx2yo7a".to_owned() } else { String::new() },
            requests: 1,
            sentences: 2,
            tokens: 3,
            refused: 4,
        };
        Ok(Response::new(ListUsageResponse { usage: vec![row], next_page_token: request.page_token }))
    }
}

#[tokio::test]
async fn usage_is_listed_over_rest() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &[]).await;
    let authorization = format!("Bearer {}", token("access", "x", None));
    let get = async |query: &str| {
        let target = format!("/api/usage{query}");
        gateway.send_body("GET", &target, &[("authorization", &*authorization)], "").await
    };
    let all = get("").await;
    let expected = json!({
        "usage": [{
            "day": "2026-11-29", "user": "ann", "key_id": "q5dmhtx2yo7a",
            "requests": 1, "sentences": 2, "tokens": 3, "refused": 4,
        }],
        "next": null,
    });
    assert_eq!((all.status, all.header("cache-control"), all.json()), (StatusCode::OK, "no-store", expected));
    assert_eq!(
        backend.take_message(),
        r#"ListUsageRequest { from: None, to: None, grouping: Unspecified, username: "", key_id: "", page_size: 100, page_token: "" }"#
    );
    let days = get("?by=day&from=2026-11-01&to=2026-11-29&user=a%20b&key_id=k&limit=7&after=x").await.json();
    let row = json!({ "day": "2026-11-29", "requests": 1, "sentences": 2, "tokens": 3, "refused": 4 });
    assert_eq!(days, json!({ "usage": [row], "next": "x" }));
    assert_eq!(
        backend.take_message(),
        r#"ListUsageRequest { from: Some(1793491200), to: Some(1795910400), grouping: Day, username: "a b", key_id: "k", page_size: 7, page_token: "x" }"#
    );
    for (query, field) in [
        ("?by=week", None),
        ("?by=", None),
        ("?username=a", None),
        ("?limit=0", Some("limit")),
        ("?from=yesterday", Some("from")),
        ("?to=2026-02-30", Some("to")),
    ] {
        let rejected = get(query).await;
        assert_eq!(
            (rejected.status, rejected.json()["field"].as_str()),
            (StatusCode::BAD_REQUEST, field),
            "{query}"
        );
    }
    assert_eq!(backend.take_message(), "", "no call for a malformed query");
    let refresh = format!("Bearer {}", token("refresh", "x", None));
    let rejected = gateway.send_body("GET", "/api/usage", &[("authorization", &*refresh)], "").await;
    assert_eq!(rejected.status, StatusCode::UNAUTHORIZED);
}
