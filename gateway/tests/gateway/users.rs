//! The routes that manage users.

use std::fmt::Debug;

use http::StatusCode;
use muse_proto::{
    Error, Reason,
    v1::{
        AddUserRequest, AddUserResponse, GetUserRequest, GetUserResponse, ListUsersRequest,
        ListUsersResponse, RemoveUserRequest, RemoveUserResponse, SetDisabledRequest, SetDisabledResponse,
        SetPasswordRequest, SetPasswordResponse, SetQuotaRequest, SetQuotaResponse, SetRoleRequest,
        SetRoleResponse, User, user_service_server::UserService,
    },
};
use serde_json::json;
use tonic::{Request, Response, Status};

use crate::harness::{Backend, Gateway, HttpResponse, token};

const JSON: (&str, &str) = ("content-type", "application/json");
const PASSWORD: &str = "canary password";

impl Backend {
    /// Records a call, and returns a user of the name, of whom there is none if it is `nobody`.
    fn user_of<T: Debug>(
        &self,
        call: Request<T>,
        name: impl FnOnce(&T) -> &str,
    ) -> Result<Option<User>, Status> {
        let message = self.record_message(call);
        match name(&message) {
            "nobody" => Err(Error::new(Reason::NoSuchUser, "there is no user \"nobody\"").into()),
            name => Ok(Some(User { username: name.to_owned(), created_at: 1, ..User::default() })),
        }
    }
}

#[tonic::async_trait]
impl UserService for Backend {
    async fn add_user(&self, call: Request<AddUserRequest>) -> Result<Response<AddUserResponse>, Status> {
        if call.get_ref().username == "taken" {
            return Err(Error::new(Reason::UserExists, "there is a user \"taken\" already").into());
        }
        let user = self.user_of(call, |request| &request.username)?;
        Ok(Response::new(AddUserResponse { user }))
    }

    async fn remove_user(
        &self,
        call: Request<RemoveUserRequest>,
    ) -> Result<Response<RemoveUserResponse>, Status> {
        self.user_of(call, |request| &request.username)?;
        Ok(Response::new(RemoveUserResponse {}))
    }

    async fn list_users(
        &self,
        call: Request<ListUsersRequest>,
    ) -> Result<Response<ListUsersResponse>, Status> {
        let users = self.user_of(call, |_| "maria")?.into_iter().collect();
        Ok(Response::new(ListUsersResponse { users, next_page_token: "maria".to_owned() }))
    }

    async fn get_user(&self, call: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        let user = self.user_of(call, |request| &request.username)?;
        Ok(Response::new(GetUserResponse { user }))
    }

    async fn set_disabled(
        &self,
        call: Request<SetDisabledRequest>,
    ) -> Result<Response<SetDisabledResponse>, Status> {
        let user = self.user_of(call, |request| &request.username)?;
        Ok(Response::new(SetDisabledResponse { user }))
    }

    async fn set_role(&self, call: Request<SetRoleRequest>) -> Result<Response<SetRoleResponse>, Status> {
        let user = self.user_of(call, |request| &request.username)?;
        Ok(Response::new(SetRoleResponse { user }))
    }

    async fn set_quota(&self, call: Request<SetQuotaRequest>) -> Result<Response<SetQuotaResponse>, Status> {
        let quota = call.get_ref().quota;
        let user = self.user_of(call, |request| &request.username)?;
        let quota = quota.filter(|quota| quota.tokens > 0);
        Ok(Response::new(SetQuotaResponse { user: user.map(|user| User { quota, ..user }) }))
    }

    async fn set_password(
        &self,
        call: Request<SetPasswordRequest>,
    ) -> Result<Response<SetPasswordResponse>, Status> {
        if call.get_ref().current_password == "wrong" {
            return Err(Error::new(Reason::BadCredentials, "Unauthorized").into());
        }
        let user = self.user_of(call, |request| &request.username)?;
        Ok(Response::new(SetPasswordResponse { user }))
    }
}

async fn send(gateway: &Gateway, method: &str, target: &str, body: &str) -> HttpResponse {
    let authorization = format!("Bearer {}", token("access", "x", None));
    gateway.send_body(method, target, &[("authorization", &authorization), JSON], body).await
}

#[tokio::test]
async fn caller_and_other_users_are_described() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &[]).await;
    // An empty name is the caller.
    for (target, name) in [("/api/user", ""), ("/api/users/maria", "maria"), ("/api/users/a%2Fb", "a/b")] {
        let described = send(&gateway, "GET", target, "").await;
        assert_eq!((described.status, described.json()["username"].as_str()), (StatusCode::OK, Some(name)));
    }
    assert_eq!(send(&gateway, "GET", "/api/users/nobody", "").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn users_are_managed_over_rest() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &[]).await;
    let send = async |method: &str, target: &str, body: &str| send(&gateway, method, target, body).await;

    let body = json!({ "username": "Maria/é 1%", "password": PASSWORD, "role": "admin" }).to_string();
    let added = send("POST", "/api/users", &body).await;
    assert_eq!(added.status, StatusCode::CREATED);
    assert_eq!(added.header("location"), "/api/users/Maria%2F%C3%A9%201%25");
    let expected = json!({ "username": "Maria/é 1%", "role": "user", "disabled": false, "created_at": 1, "quota": null });
    assert_eq!(added.json(), expected);
    let message = r#"AddUserRequest { username: "Maria/é 1%", password: "canary password", role: Admin }"#;
    assert_eq!(backend.take_message(), message);
    let body = json!({ "username": "taken", "password": PASSWORD }).to_string();
    let taken = send("POST", "/api/users", &body).await;
    assert_eq!((taken.status.as_u16(), &taken.json()["reason"]), (409, &json!("USER_EXISTS")));

    let listed = send("GET", "/api/users?limit=7&after=a%20b", "").await.json();
    assert_eq!((&listed["users"][0]["username"], &listed["next"]), (&json!("maria"), &json!("maria")));
    assert_eq!(backend.take_message(), r#"ListUsersRequest { page_size: 7, page_token: "a b" }"#);
    send("GET", "/api/users", "").await;
    assert_eq!(backend.take_message(), r#"ListUsersRequest { page_size: 100, page_token: "" }"#);
    for query in ["limit=0", "limit=1001", "limit=x"] {
        let rejected = send("GET", &format!("/api/users?{query}"), "").await;
        assert_eq!(rejected.status, StatusCode::BAD_REQUEST, "{query}");
    }

    let password = "canary password";
    for (body, message) in [
        (json!({ "role": "user" }), r#"SetRoleRequest { username: "m", role: User }"#),
        (json!({ "disabled": true }), r#"SetDisabledRequest { username: "m", disabled: true }"#),
        (
            json!({ "password": password }),
            r#"SetPasswordRequest { username: "m", password: "canary password", current_password: "", delete_keys: false }"#,
        ),
        (
            json!({ "password": password, "current_password": "c", "delete_keys": true }),
            r#"SetPasswordRequest { username: "m", password: "canary password", current_password: "c", delete_keys: true }"#,
        ),
    ] {
        let changed = send("PATCH", "/api/users/m", &body.to_string()).await;
        assert_eq!((changed.status.as_u16(), &changed.json()["username"]), (200, &json!("m")), "{body}");
        assert_eq!(backend.take_message(), message);
    }
    let quota = json!({ "tokens": 5, "period": "month" });
    for (body, shown, message) in [
        (json!({ "quota": quota }), quota, "Some(Quota { tokens: 5, period: Month })"),
        (json!({ "quota": null }), json!(null), "Some(Quota { tokens: 0, period: Unspecified })"),
    ] {
        let changed = send("PATCH", "/api/users/m", &body.to_string()).await;
        assert_eq!((changed.status.as_u16(), &changed.json()["quota"]), (200, &shown), "{body}");
        assert_eq!(
            backend.take_message(),
            format!(r#"SetQuotaRequest {{ username: "m", quota: {message} }}"#)
        );
    }
    let body = json!({ "password": password, "current_password": "wrong" }).to_string();
    let wrong = send("PATCH", "/api/users/m", &body).await;
    assert_eq!((wrong.status.as_u16(), wrong.header("www-authenticate")), (401, "Bearer"));
    assert_eq!(wrong.json()["reason"], json!("BAD_CREDENTIALS"));

    for (target, message) in [
        ("/api/users/m", r#"RemoveUserRequest { username: "m" }"#),
        ("/api/users/m/tokens", r#"RevokeUserTokensRequest { username: "m", delete_keys: false }"#),
        (
            "/api/users/m/tokens?delete_keys=true",
            r#"RevokeUserTokensRequest { username: "m", delete_keys: true }"#,
        ),
    ] {
        assert_eq!(send("DELETE", target, "").await.status, StatusCode::NO_CONTENT);
        assert_eq!(backend.take_message(), message);
    }
    let rejected = send("DELETE", "/api/users/m/tokens?delete_keys=maybe", "").await;
    assert_eq!((rejected.status, backend.take_message().as_str()), (StatusCode::BAD_REQUEST, ""));
    let none = send("DELETE", "/api/users/nobody", "").await;
    assert_eq!((none.status.as_u16(), &none.json()["reason"]), (404, &json!("NO_SUCH_USER")));
    for (method, target, allowed) in [
        ("PUT", "/api/users", "GET, HEAD, OPTIONS, POST"),
        ("POST", "/api/users/m", "DELETE, GET, HEAD, OPTIONS, PATCH"),
        ("PUT", "/api/user", "GET, HEAD, OPTIONS"),
        ("POST", "/api/users/m/tokens", "DELETE, OPTIONS"),
    ] {
        let rejected = send(method, target, "").await;
        assert_eq!((rejected.status.as_u16(), rejected.header("allow")), (405, allowed), "{target}");
    }
}

#[tokio::test]
async fn user_name_in_a_path_is_percent_encoded_utf8() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &[]).await;
    for (segment, name) in [
        ("a%2Fb", "a/b"),
        ("%2Ftokens", "/tokens"),
        ("two%20words", "two words"),
        ("a+b", "a+b"),
        ("a%2bb%3f%23%26", "a+b?#&"),
        ("%C3%89mile", "Émile"),
        ("%E7%94%B0%E4%B8%AD", "田中"),
        ("100%25", "100%"),
        ("%252F", "%2F"),
        ("..", ".."),
        ("%2e%2E", ".."),
        ("tokens", "tokens"),
        ("%00", "\0"),
    ] {
        let target = format!("/api/users/{segment}");
        for (method, target, body, message) in [
            ("DELETE", &*target, "", format!("RemoveUserRequest {{ username: {name:?} }}")),
            (
                "PATCH",
                &*target,
                r#"{"disabled": true}"#,
                format!("SetDisabledRequest {{ username: {name:?}, disabled: true }}"),
            ),
            (
                "DELETE",
                &*format!("{target}/tokens"),
                "",
                format!("RevokeUserTokensRequest {{ username: {name:?}, delete_keys: false }}"),
            ),
        ] {
            let response = send(&gateway, method, target, body).await;
            assert!(response.status.is_success(), "{method} {target}: {}", response.status);
            assert_eq!(backend.take_message(), message);
        }
    }
    // In a call an empty name is the caller.
    for segment in ["", "%ff", "%C3", "a%80"] {
        let target = format!("/api/users/{segment}");
        let password = json!({ "password": PASSWORD }).to_string();
        for (method, target, body) in [
            ("DELETE", &*target, ""),
            ("PATCH", &*target, &*password),
            ("DELETE", &*format!("{target}/tokens"), ""),
        ] {
            let response = send(&gateway, method, target, body).await;
            assert_eq!((response.status.as_u16(), &*backend.take_message()), (404, ""), "{method} {target}");
        }
    }
}

#[tokio::test]
async fn change_of_several_properties_is_rejected_without_a_call() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &[]).await;
    for body in [
        r#"{"role": "user", "disabled": true}"#,
        r#"{"role": "admin", "password": "canary password"}"#,
        r#"{"disabled": false, "delete_keys": true}"#,
        r#"{"role": "user", "role": "admin"}"#,
        r#"{"delete_keys": true}"#,
        r#"{"current_password": "canary password"}"#,
        r#"{"role": null}"#,
        r#"{"role": "owner"}"#,
        r#"{"disabled": "true"}"#,
        r#"{"password": "canary password", "current_password": null}"#,
        r#"{"password": ["canary password"]}"#,
        r#"{"canary password": true}"#,
        r#"["admin"]"#,
        "{}",
    ] {
        let rejected = send(&gateway, "PATCH", "/api/users/m", body).await;
        let problem = rejected.json();
        assert_eq!(
            (rejected.status.as_u16(), &problem["reason"]),
            (400, &json!("INVALID_ARGUMENT")),
            "{body}"
        );
        assert!(!problem.to_string().contains("canary"), "{problem}");
        assert_eq!(backend.take_message(), "", "{body}");
        if body.starts_with("{") {
            assert!(problem["detail"].as_str().unwrap().contains("exactly one of role"), "{problem}");
        }
    }
    for body in [
        r#"{"username": "m"}"#,
        r#"{"username": "m", "password": 1}"#,
        r#"{"username": "m", "password": "canary password", "role": "canary"}"#,
        r#"{"username": "m", "password": "canary password", "canary": 1}"#,
        r#"{"username": "m", "password": "canary password""#,
        r#"["m", "canary password"]"#,
    ] {
        let rejected = send(&gateway, "POST", "/api/users", body).await;
        assert_eq!((rejected.status.as_u16(), &*backend.take_message()), (400, ""), "{body}");
        assert!(!rejected.json().to_string().contains("canary"), "{body}");
    }
}

#[tokio::test]
async fn cookies_of_other_sites_do_not_manage_users() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &[]).await;
    let token = token("access", "x", None);
    let (cookie, authorization) = (format!("access_token_cookie={token}"), format!("Bearer {token}"));
    let add = json!({ "username": "m", "password": PASSWORD }).to_string();
    for (method, target, body, success) in [
        ("GET", "/api/users", "", 200),
        ("GET", "/api/usage", "", 200),
        ("POST", "/api/users", &*add, 201),
        ("PATCH", "/api/users/m", r#"{"role": "admin"}"#, 200),
        ("DELETE", "/api/users/m", "", 204),
        ("DELETE", "/api/users/m/tokens", "", 204),
    ] {
        let status = async |credential: (&str, &str), page: Option<(&str, &str)>| {
            let headers: Vec<_> = [credential, JSON].into_iter().chain(page).collect();
            gateway.send_body(method, target, &headers, body).await.status.as_u16()
        };
        for page in [None, Some(("sec-fetch-site", "same-origin"))] {
            assert_eq!(status(("cookie", &cookie), page).await, success, "{method} {target} {page:?}");
        }
        for page in [("sec-fetch-site", "cross-site"), ("origin", "http://evil.example")] {
            assert_eq!(status(("cookie", &cookie), Some(page)).await, 403, "{method} {target} {page:?}");
            assert_eq!(
                status(("authorization", &authorization), Some(page)).await,
                success,
                "{method} {target}"
            );
        }
    }
}
