//! Usage and quotas of a real service.

use muse_auth::Role;
use muse_proto::{
    Error, Reason,
    v1::{
        ApiKey, CreateKeyRequest, GetKeyRequest, ListUsageRequest, ListUsersRequest, Quota, QuotaPeriod,
        QuotaState, RemoveUserRequest, ReportUsageRequest, SetQuotaRequest, UpdateKeyRequest, UsageCount,
        UsageGrouping, UsageRow, WatchRevocationsRequest, WatchRevocationsResponse,
        key_service_client::KeyServiceClient, usage_service_client::UsageServiceClient,
    },
};
use muse_verifier::api_keys::KeyId;
use secrecy::SecretString;
use tonic::{Streaming, transport::Channel};

use crate::harness::{PASSWORD, Service, admin_ops, folder, with_token};

const DAY: i64 = 86_400;
const HOUR: i64 = 3_600;

fn now() -> i64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since_epoch.as_secs()).unwrap()
}

/// The usage of an hour: as many requests and sentences as tokens.
fn count(username: &str, key: Option<&ApiKey>, hour: i64, tokens: u64) -> UsageCount {
    let key_id = key.map(|key| key.id.parse::<KeyId>().unwrap().number());
    let username = username.to_owned();
    UsageCount { hour, username, key_id, requests: tokens, sentences: tokens, tokens, refused: 1 }
}

async fn report(service: &Service, sequence: u64, counts: &[UsageCount]) -> Result<(), Error> {
    let report = ReportUsageRequest { reporter: "embedder-1".to_owned(), sequence, counts: counts.to_vec() };
    let reported = service.revocations().report_usage(report).await;
    reported.map(drop).map_err(|status| Error::from(&status))
}

async fn list(
    service: &Service,
    credential: &str,
    request: ListUsageRequest,
) -> Result<(Vec<UsageRow>, String), Error> {
    let mut usage = UsageServiceClient::new(service.channel.clone());
    let listed = usage.list_usage(with_token(request, credential)).await;
    let page = listed.map_err(|status| Error::from(&status))?.into_inner();
    Ok((page.usage, page.next_page_token))
}

async fn create_key(service: &Service, token: &str, request: CreateKeyRequest) -> (ApiKey, String) {
    let mut keys = KeyServiceClient::new(service.channel.clone());
    let created = keys.create_key(with_token(request, token)).await.unwrap().into_inner();
    (created.key.unwrap(), created.secret_key)
}

fn named(name: &str) -> CreateKeyRequest {
    CreateKeyRequest { name: name.to_owned(), ..CreateKeyRequest::default() }
}

/// A service with the users admin and ann, and access tokens of both.
async fn service_with_ann(config: &muse_auth::Config) -> (Service, String, String) {
    let operator = admin_ops(config).await;
    let password = || SecretString::from(PASSWORD);
    for (name, role) in [("admin", Role::Admin), ("ann", Role::User)] {
        operator.users().unwrap().add(name, password(), role).await.unwrap();
    }
    operator.close().await;
    let service = Service::start(config).await;
    let (admin, _) = service.tokens().await;
    let ann = service.login("ann", PASSWORD).await.unwrap().access_token;
    (service, admin, ann)
}

#[tokio::test]
async fn report_sent_twice_counts_once() {
    let (_folder, config) = folder();
    let (service, admin, _) = service_with_ann(&config).await;
    let tokens = async |service: &Service| {
        list(service, &admin, ListUsageRequest::default())
            .await
            .unwrap()
            .0
            .iter()
            .map(|row| row.tokens)
            .sum::<u64>()
    };
    report(&service, 1, &[count("ann", None, now(), 3)]).await.unwrap();
    report(&service, 1, &[count("ann", None, now(), 3)]).await.unwrap();
    assert_eq!(tokens(&service).await, 3);
    report(&service, 2, &[count("ann", None, now(), 4)]).await.unwrap();
    report(&service, 1, &[count("ann", None, now(), 3)]).await.unwrap();
    assert_eq!(tokens(&service).await, 7);
    service.stop().await;

    let service = Service::start(&config).await;
    report(&service, 2, &[count("ann", None, now(), 4)]).await.unwrap();
    assert_eq!(tokens(&service).await, 7, "also by another process");
    let malformed = [UsageCount { tokens: u64::MAX, ..count("ann", None, now(), 0) }];
    assert_eq!(report(&service, 3, &malformed).await.unwrap_err().reason(), Reason::InvalidArgument);
    assert_eq!(tokens(&service).await, 7);
    service.stop().await;
}

#[tokio::test]
async fn usage_is_grouped_and_paged() {
    let (_folder, config) = folder();
    let (service, admin, ann) = service_with_ann(&config).await;
    let (key, _) = create_key(&service, &ann, named("a")).await;
    let today = now().div_euclid(DAY) * DAY;
    let hour = now().div_euclid(HOUR) * HOUR;
    let counts = [
        count("ann", None, today - DAY, 1),
        count("ann", Some(&key), today - DAY + HOUR, 2),
        count("ann", Some(&key), hour, 4),
        count("admin", None, hour, 8),
    ];
    report(&service, 1, &counts).await.unwrap();

    let row = |start: i64, username: &str, key_id: &str, tokens: u64, refused| UsageRow {
        start,
        username: username.to_owned(),
        key_id: key_id.to_owned(),
        requests: tokens,
        sentences: tokens,
        tokens,
        refused,
    };
    let id = key.id.as_str();
    let yesterday = today - DAY;
    for (grouping, expected) in [
        (
            UsageGrouping::Unspecified,
            vec![
                row(yesterday, "ann", "", 1, 1),
                row(yesterday, "ann", id, 2, 1),
                row(today, "admin", "", 8, 1),
                row(today, "ann", id, 4, 1),
            ],
        ),
        (UsageGrouping::Day, vec![row(yesterday, "", "", 3, 2), row(today, "", "", 12, 2)]),
        (UsageGrouping::User, vec![row(0, "admin", "", 8, 1), row(0, "ann", "", 7, 3)]),
        (
            UsageGrouping::Key,
            vec![row(0, "admin", "", 8, 1), row(0, "ann", "", 1, 1), row(0, "ann", id, 6, 2)],
        ),
        (
            UsageGrouping::Hour,
            vec![row(yesterday, "", "", 1, 1), row(yesterday + HOUR, "", "", 2, 1), row(hour, "", "", 12, 2)],
        ),
    ] {
        let all = ListUsageRequest { grouping: grouping.into(), ..ListUsageRequest::default() };
        let whole = list(&service, &admin, all.clone()).await.unwrap();
        assert_eq!(whole, (expected.clone(), String::new()), "{grouping:?}");
        let (mut paged, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListUsageRequest { page_size: 1, page_token, ..all.clone() };
            let (page, next) = list(&service, &admin, request).await.unwrap();
            assert!(page.len() <= 1);
            paged.extend(page);
            if next.is_empty() {
                break;
            }
            page_token = next;
        }
        assert_eq!(paged, expected, "{grouping:?}");
    }
    let only = |from: i64, to: i64| ListUsageRequest {
        from: Some(from),
        to: Some(to),
        grouping: UsageGrouping::Day.into(),
        ..ListUsageRequest::default()
    };
    let days = async |from, to| list(&service, &ann, only(from, to)).await.map(|(rows, _)| rows.len());
    assert_eq!((days(today, today).await, days(yesterday + 5, today + 5).await), (Ok(1), Ok(2)));
    assert_eq!(days(yesterday - DAY, yesterday - DAY).await, Ok(0));
    assert_eq!(days(today, yesterday).await.unwrap_err().field(), Some("from"));
    assert_eq!(days(-1, today).await.unwrap_err().field(), Some("from"));
    service.stop().await;
}

#[tokio::test]
async fn usage_of_others_is_for_admins() {
    let (_folder, config) = folder();
    let (service, admin, ann) = service_with_ann(&config).await;
    let (key, secret) = create_key(&service, &ann, named("a")).await;
    let counts = [
        count("ann", None, now(), 1),
        count("ann", Some(&key), now(), 2),
        count("admin", None, now(), 4),
        count("gone", None, now(), 8),
    ];
    report(&service, 1, &counts).await.unwrap();
    let tokens = async |credential: &str, username: &str, key_id: &str| {
        let (username, key_id) = (username.to_owned(), key_id.to_owned());
        let request = ListUsageRequest { username, key_id, ..ListUsageRequest::default() };
        let listed = list(&service, credential, request).await;
        listed.map(|(rows, _)| rows.iter().map(|row| row.tokens).sum::<u64>()).map_err(|error| error.reason())
    };
    let id = key.id.as_str();
    let denied = Err(Reason::PermissionDenied);
    assert_eq!((tokens(&ann, "", "").await, tokens(&ann, "ann", id).await), (Ok(3), Ok(2)));
    assert_eq!(tokens(&ann, "admin", "").await, denied);
    assert_eq!(tokens(&secret, "", "").await, Ok(2), "a key sees its own usage only");
    assert_eq!(tokens(&secret, "ann", id).await, Ok(2));
    assert_eq!(
        (tokens(&secret, "admin", "").await, tokens(&secret, "", "aaaaaaaaaaab").await),
        (denied, denied)
    );
    assert_eq!((tokens(&admin, "", "").await, tokens(&admin, "admin", "").await), (Ok(15), Ok(4)));
    assert_eq!((tokens(&admin, "ann", "").await, tokens(&admin, "", id).await), (Ok(3), Ok(2)));
    assert_eq!(tokens(&admin, "gone", "").await, Ok(8), "of a removed user");
    for nobody in ["nobody", "\0"] {
        assert_eq!(tokens(&admin, nobody, "").await, Err(Reason::NoSuchUser));
    }
    assert_eq!(tokens(&ann, "", &secret).await, Err(Reason::InvalidArgument), "not an id");
    assert_eq!(tokens("x", "", "").await, Err(Reason::TokenInvalid));
    service.stop().await;
}

/// The quotas of the next message that has some.
async fn next_quotas(stream: &mut Streaming<WatchRevocationsResponse>) -> Vec<QuotaState> {
    loop {
        let message = stream.message().await.unwrap().unwrap();
        if !message.quotas.is_empty() {
            return message.quotas;
        }
    }
}

async fn watch(service: &Service) -> Streaming<WatchRevocationsResponse> {
    service.revocations().watch_revocations(WatchRevocationsRequest::default()).await.unwrap().into_inner()
}

async fn set_quota(service: &Service, token: &str, name: &str, tokens: u64) -> Result<Option<Quota>, Error> {
    let quota = Some(Quota { tokens, period: QuotaPeriod::Day.into() });
    let request = SetQuotaRequest { username: name.to_owned(), quota };
    let user = service.users().set_quota(with_token(request, token)).await;
    Ok(user.map_err(|status| Error::from(&status))?.into_inner().user.unwrap().quota)
}

#[tokio::test]
async fn quota_is_pushed_with_its_use() {
    let (_folder, config) = folder();
    let (service, admin, ann) = service_with_ann(&config).await;
    report(&service, 1, &[count("ann", None, now(), 3)]).await.unwrap();
    let mut stream = watch(&service).await;
    assert!(stream.message().await.unwrap().unwrap().quotas.is_empty());

    assert_eq!(set_quota(&service, &ann, "ann", 10).await.unwrap_err().reason(), Reason::PermissionDenied);
    assert_eq!(set_quota(&service, &admin, "nobody", 10).await.unwrap_err().reason(), Reason::NoSuchUser);
    assert_eq!(set_quota(&service, &admin, "ann", u64::MAX).await.unwrap_err().field(), Some("quota"));
    assert_eq!(set_quota(&service, &admin, "ann", 10).await.unwrap().unwrap().tokens, 10);
    let state = |key_id, limit, used, resets_at| QuotaState {
        username: "ann".to_owned(),
        key_id,
        limit,
        used,
        resets_at,
    };
    let tomorrow = (now().div_euclid(DAY) + 1) * DAY;
    assert_eq!(next_quotas(&mut stream).await, [state(None, 10, 3, tomorrow)], "earlier usage counts");

    let month = Quota { tokens: 5, period: QuotaPeriod::Month.into() };
    let (key, _) = create_key(&service, &ann, CreateKeyRequest { quota: Some(month), ..named("a") }).await;
    assert_eq!(key.quota, Some(month));
    let id = key.id.parse::<KeyId>().unwrap().number();
    let quota_of_key = next_quotas(&mut stream).await;
    let [QuotaState { resets_at: next_month, .. }] = quota_of_key[..] else { panic!("{quota_of_key:?}") };
    assert_eq!(quota_of_key, [state(Some(id), 5, 0, next_month)]);
    assert!(next_month >= tomorrow);

    report(&service, 2, &[count("ann", Some(&key), now(), 4), count("admin", None, now(), 9)]).await.unwrap();
    let mut used = next_quotas(&mut stream).await;
    used.sort_by_key(|state| state.key_id);
    let expected = [state(None, 10, 7, tomorrow), state(Some(id), 5, 4, next_month)];
    assert_eq!(used, expected);
    let mut all = next_quotas(&mut watch(&service).await).await;
    all.sort_by_key(|state| state.key_id);
    assert_eq!(all, expected, "a new stream begins with all");

    let mut keys = KeyServiceClient::new(service.channel.clone());
    let unchanged = UpdateKeyRequest { id: key.id.clone(), bulk: Some(true), ..UpdateKeyRequest::default() };
    let changed = keys.update_key(with_token(unchanged, &ann)).await.unwrap().into_inner().key.unwrap();
    assert_eq!((changed.quota, changed.bulk), (Some(month), true));
    let removed =
        UpdateKeyRequest { id: key.id.clone(), quota: Some(Quota::default()), ..UpdateKeyRequest::default() };
    assert_eq!(
        keys.update_key(with_token(removed, &ann)).await.unwrap().into_inner().key.unwrap().quota,
        None
    );
    assert_eq!(quota_of(&mut keys, &key.id, &ann).await, None);
    assert_eq!(next_quotas(&mut stream).await[0].limit, 0);

    let listed = service.users().list_users(with_token(ListUsersRequest::default(), &admin)).await.unwrap();
    let quotas: Vec<_> = listed.into_inner().users.iter().map(|user| user.quota.map(|q| q.tokens)).collect();
    assert_eq!(quotas, [None, Some(10)]);
    let request = RemoveUserRequest { username: "ann".to_owned() };
    service.users().remove_user(with_token(request, &admin)).await.unwrap();
    let removed = next_quotas(&mut stream).await;
    assert_eq!((removed[0].limit, removed[0].key_id), (0, None), "the name may be used again");
    service.stop().await;
}

async fn quota_of(keys: &mut KeyServiceClient<Channel>, id: &str, token: &str) -> Option<Quota> {
    let request = GetKeyRequest { id: id.to_owned() };
    keys.get_key(with_token(request, token)).await.unwrap().into_inner().key.unwrap().quota
}
