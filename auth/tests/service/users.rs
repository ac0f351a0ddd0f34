//! User management over gRPC.

use muse_proto::{
    Error, Reason,
    v1::{
        AddUserRequest, GetUserRequest, ListUsersRequest, RemoveUserRequest, RevokeUserTokensRequest, Role,
        SetDisabledRequest, SetPasswordRequest, SetRoleRequest, User,
    },
};
use tonic::{Response, Status};

use crate::harness::{PASSWORD, Service, error, folder, revoked, with_token};

fn into_result<T>(answer: Result<Response<T>, Status>) -> Result<T, Error> {
    answer.map(Response::into_inner).map_err(|status| Error::from(&status))
}

fn reason<T>(answer: Result<T, Error>) -> Reason {
    answer.err().map(|rejected| rejected.reason()).expect("it is rejected")
}

async fn add(service: &Service, token: &str, username: &str, role: Role) -> Result<User, Error> {
    let message =
        AddUserRequest { username: username.to_owned(), password: PASSWORD.to_owned(), role: role.into() };
    into_result(service.users().add_user(with_token(message, token)).await).map(|answer| answer.user.unwrap())
}

async fn access(service: &Service, username: &str) -> String {
    service.login(username, PASSWORD).await.unwrap().access_token
}

async fn disable(service: &Service, token: &str, username: &str, disabled: bool) -> Result<(), Error> {
    let message = SetDisabledRequest { username: username.to_owned(), disabled };
    into_result(service.users().set_disabled(with_token(message, token)).await).map(drop)
}

async fn remove(service: &Service, token: &str, username: &str) -> Result<(), Error> {
    let message = RemoveUserRequest { username: username.to_owned() };
    into_result(service.users().remove_user(with_token(message, token)).await).map(drop)
}

async fn set_role(service: &Service, token: &str, username: &str, role: Role) -> Result<(), Error> {
    let message = SetRoleRequest { username: username.to_owned(), role: role.into() };
    into_result(service.users().set_role(with_token(message, token)).await).map(drop)
}

async fn set_password(service: &Service, token: &str, words: [&str; 3]) -> Result<(), Error> {
    let [username, password, current_password] = words.map(str::to_owned);
    let message = SetPasswordRequest { username, password, current_password, delete_keys: false };
    into_result(service.users().set_password(with_token(message, token)).await).map(drop)
}

#[tokio::test]
async fn admin_manages_users() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let admin = access(&service, "admin").await;
    let ann = add(&service, &admin, "ann", Role::Unspecified).await.unwrap();
    assert_eq!((ann.username.as_str(), ann.role(), ann.disabled), ("ann", Role::User, false));
    assert_eq!(reason(add(&service, &admin, "ann", Role::User).await), Reason::UserExists);
    assert_eq!(reason(add(&service, &admin, " ann", Role::User).await), Reason::InvalidArgument);

    let tokens = service.login("ann", PASSWORD).await.unwrap();
    disable(&service, &admin, "ann", true).await.unwrap();
    assert_eq!(
        service.login("ann", PASSWORD).await.map(drop),
        Err(error(Reason::BadCredentials, "Unauthorized"))
    );
    assert_eq!(service.refresh(&tokens.refresh_token).await, Err(revoked()));
    disable(&service, &admin, "ann", false).await.unwrap();
    assert_eq!(service.refresh(&tokens.refresh_token).await, Err(revoked()), "revoked tokens remain revoked");

    let tokens = service.login("ann", PASSWORD).await.unwrap();
    set_password(&service, &admin, ["ann", "another password", ""]).await.unwrap();
    assert_eq!(service.refresh(&tokens.refresh_token).await, Err(revoked()));
    let tokens = service.login("ann", "another password").await.unwrap();

    remove(&service, &admin, "ann").await.unwrap();
    assert_eq!(service.refresh(&tokens.refresh_token).await, Err(revoked()));
    assert_eq!(reason(remove(&service, &admin, "ann").await), Reason::NoSuchUser);
    add(&service, &admin, "ann", Role::User).await.unwrap();
    assert_eq!(
        service.refresh(&tokens.refresh_token).await,
        Err(revoked()),
        "the token of an earlier user of that name"
    );
    assert!(service.login("ann", PASSWORD).await.is_ok());
    service.stop().await;
}

#[tokio::test]
async fn non_admin_cannot_manage_users() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let admin = access(&service, "admin").await;
    add(&service, &admin, "ann", Role::User).await.unwrap();
    let ann = access(&service, "ann").await;
    assert_eq!(reason(add(&service, &ann, "bob", Role::User).await), Reason::PermissionDenied);
    assert_eq!(reason(remove(&service, &ann, "admin").await), Reason::PermissionDenied);
    assert_eq!(reason(disable(&service, &ann, "admin", true).await), Reason::PermissionDenied);
    assert_eq!(reason(set_role(&service, &ann, "ann", Role::Admin).await), Reason::PermissionDenied);
    let words = ["admin", "another password", PASSWORD];
    assert_eq!(reason(set_password(&service, &ann, words).await), Reason::PermissionDenied);
    let listed = service.users().list_users(with_token(ListUsersRequest::default(), &ann)).await;
    assert_eq!(reason(into_result(listed)), Reason::PermissionDenied);
    let of_admin = RevokeUserTokensRequest { username: "admin".to_owned(), delete_keys: false };
    let rejected = service.auth().revoke_user_tokens(with_token(of_admin, &ann)).await;
    assert_eq!(reason(into_result(rejected)), Reason::PermissionDenied);

    // A new role applies at once, also to existing tokens.
    set_role(&service, &admin, "ann", Role::Admin).await.unwrap();
    add(&service, &ann, "bob", Role::User).await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn users_see_themselves_and_admins_see_all() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let admin = access(&service, "admin").await;
    add(&service, &admin, "ann", Role::User).await.unwrap();
    let ann = access(&service, "ann").await;
    let get = async |token: &str, username: &str| {
        let message = GetUserRequest { username: username.to_owned() };
        let answer = service.users().get_user(with_token(message, token)).await;
        into_result(answer).map(|answer| answer.user.unwrap())
    };
    for (token, name, found) in
        [(&ann, "", "ann"), (&ann, "ann", "ann"), (&admin, "", "admin"), (&admin, "ann", "ann")]
    {
        assert_eq!(get(token, name).await.unwrap().username, found);
    }
    assert_eq!(get(&admin, "").await.unwrap().role(), Role::Admin);
    // Whether another user exists is not disclosed.
    for name in ["admin", "nobody"] {
        assert_eq!(reason(get(&ann, name).await), Reason::PermissionDenied);
    }
    assert_eq!(reason(get(&admin, "nobody").await), Reason::NoSuchUser);
    service.stop().await;
}

#[tokio::test]
async fn user_changes_own_password() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let admin = access(&service, "admin").await;
    add(&service, &admin, "ann", Role::User).await.unwrap();
    let ann = access(&service, "ann").await;
    let wrong = set_password(&service, &ann, ["", "another password", "a guess"]).await;
    assert_eq!(reason(wrong), Reason::BadCredentials);
    let short = set_password(&service, &ann, ["", "short", PASSWORD]).await;
    assert_eq!(reason(short), Reason::InvalidArgument);
    let message = SetPasswordRequest {
        username: "ann".to_owned(),
        password: "another password".to_owned(),
        current_password: PASSWORD.to_owned(),
        delete_keys: false,
    };
    let changed = into_result(service.users().set_password(with_token(message, &ann)).await).unwrap();
    assert_eq!(changed.user.map(|user| user.username), Some("ann".to_owned()));
    assert!(service.login("ann", "another password").await.is_ok());
    assert_eq!(service.revoke(&ann).await, Err(revoked()), "the tokens are revoked");
    service.stop().await;
}

/// "é" in NFC and NFD.
#[tokio::test]
async fn own_name_is_recognised_in_any_normal_form() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let admin = access(&service, "admin").await;
    add(&service, &admin, "ren\u{e9}", Role::User).await.unwrap();
    let own = access(&service, "ren\u{e9}").await;
    let words = ["rene\u{301}", "another password", PASSWORD];
    set_password(&service, &own, words).await.unwrap();
    let own = service.login("ren\u{e9}", "another password").await.unwrap().access_token;
    let request = RevokeUserTokensRequest { username: "rene\u{301}".to_owned(), delete_keys: false };
    into_result(service.auth().revoke_user_tokens(with_token(request, &own)).await).unwrap();
    assert_eq!(service.revoke(&own).await, Err(revoked()));
    service.stop().await;
}

#[tokio::test]
async fn last_admin_cannot_be_removed() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let admin = access(&service, "admin").await;
    assert_eq!(reason(remove(&service, &admin, "admin").await), Reason::LastAdmin);
    assert_eq!(reason(disable(&service, &admin, "admin", true).await), Reason::LastAdmin);
    assert_eq!(reason(set_role(&service, &admin, "admin", Role::User).await), Reason::LastAdmin);
    assert!(service.revoke(&admin).await.is_ok(), "a rejected change revokes no tokens");
    let admin = access(&service, "admin").await;
    add(&service, &admin, "ann", Role::Admin).await.unwrap();
    remove(&service, &admin, "admin").await.unwrap();
    let ann = access(&service, "ann").await;
    assert_eq!(reason(remove(&service, &ann, "ann").await), Reason::LastAdmin);
    service.stop().await;
}

#[tokio::test]
async fn users_are_listed_in_pages() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let admin = access(&service, "admin").await;
    for name in ["eve", "bob", "Émile", "dan", "carl"] {
        add(&service, &admin, name, Role::User).await.unwrap();
    }
    let mut names = Vec::new();
    let mut request = ListUsersRequest { page_size: 2, page_token: String::new() };
    loop {
        let listed = service.users().list_users(with_token(request.clone(), &admin)).await;
        let page = into_result(listed).unwrap();
        assert!((1..=2).contains(&page.users.len()));
        names.extend(page.users.into_iter().map(|user| user.username));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    names.sort();
    assert_eq!(names, ["admin", "bob", "carl", "dan", "eve", "Émile"]);
    let all = service.users().list_users(with_token(ListUsersRequest::default(), &admin)).await;
    assert_eq!(into_result(all).unwrap().users.len(), 6);
    let negative = ListUsersRequest { page_size: -1, ..Default::default() };
    let with_nul = ListUsersRequest { page_token: "\0".to_owned(), ..Default::default() };
    for invalid in [negative, with_nul] {
        let rejected = service.users().list_users(with_token(invalid, &admin)).await;
        assert_eq!(reason(into_result(rejected)), Reason::InvalidArgument);
    }
    assert_eq!(reason(remove(&service, &admin, "\0").await), Reason::NoSuchUser);
    service.stop().await;
}

#[tokio::test]
async fn user_revokes_all_own_tokens() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let (access, refresh) = service.tokens().await;
    let (other, _) = service.tokens().await;
    let call = with_token(RevokeUserTokensRequest::default(), &access);
    service.auth().revoke_user_tokens(call).await.unwrap();
    for token in [&access, &other, &refresh] {
        assert_eq!(service.revoke(token).await, Err(revoked()));
    }
    let (access, _) = service.tokens().await;
    assert_eq!(service.revoke(&access).await, Ok(()), "tokens of the next login are valid");
    service.stop().await;
}
