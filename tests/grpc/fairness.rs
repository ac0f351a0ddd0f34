//! Fairness between users and between the service classes of one, and rejections with a retry delay.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use muse_proto::{
    Error, Reason,
    v1::{
        AddUserRequest, CreateKeyRequest, EmbedRequest, EmbedStreamRequest, LoginRequest, Role,
        key_service_client::KeyServiceClient,
    },
};
use muse_tests::{
    Stack, bearing, http_client::HttpClient, model_dir, start_auth, start_embedder, start_gateway, until,
};
use tonic::Code;

use crate::{reason, sentences, timing};

fn many(count: usize) -> EmbedRequest {
    EmbedRequest {
        sentences: vec!["one two three four five six seven eight".to_owned(); count],
        ..Default::default()
    }
}

async fn stack_with(options: &[&str]) -> Stack {
    let data = tempfile::tempdir().expect("there is a place for temporary files");
    let auth = start_auth(muse_tests::auth_config(data.path())).await;
    let embedder = start_embedder(&model_dir(), auth.address, options).await;
    let gateway = start_gateway(auth.address, embedder.address, &[]).await;
    let stack = Stack { data, auth, embedder, gateway };
    stack.wait_until_ready().await;
    stack
}

/// Adds another user and returns an access token.
async fn add_user(stack: &Stack, admin: &str) -> String {
    let (username, password) = ("maria", "correct horse battery");
    let user = AddUserRequest {
        username: username.to_owned(),
        password: password.to_owned(),
        role: Role::User.into(),
    };
    stack.user_client().add_user(bearing(admin, user)).await.expect("admin may add users");
    let login = LoginRequest { username: username.to_owned(), password: password.to_owned() };
    stack.auth_client().login(login).await.expect("the user may log in").into_inner().access_token
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_job_does_not_delay_other_users_or_own_small_calls() {
    let stack = Stack::start().await;
    let admin = stack.login().await.access_token;
    let maria = add_user(&stack, &admin).await;
    // One request, and many.
    for (calls, size) in [(1, 4_096), (128, 32)] {
        let jobs: Vec<_> = (0..calls)
            .map(|_| {
                let (mut client, call) = (stack.embedder_client(), bearing(&admin, many(size)));
                tokio::spawn(async move { client.embed(call).await })
            })
            .collect();
        let start = Instant::now();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut queued = Vec::new();
        for token in [&maria, &admin, &maria] {
            let answer = stack.embedder_client().embed(bearing(token, sentences(&["a"]))).await.unwrap();
            queued.push(timing(answer.metadata(), "queue"));
        }
        assert!(jobs.iter().any(|job| !job.is_finished()), "the job ended too early");
        for job in jobs {
            assert_eq!(job.await.unwrap().unwrap().into_inner().embeddings.len(), size);
        }
        let whole = start.elapsed().as_secs_f64() * 1e3;
        // A pass takes about a sixtieth of the job on two cores.
        assert!(
            queued.iter().all(|&queued| queued < whole / 4.0),
            "waited {queued:?} ms beside a job of {whole} ms"
        );
    }
    stack.stop().await;
}

/// Creates a bulk key of the owner of a token.
async fn bulk_key(stack: &Stack, token: &str) -> String {
    let request = CreateKeyRequest { name: "nightly job".to_owned(), bulk: true, ..Default::default() };
    let created = KeyServiceClient::new(stack.channel()).create_key(bearing(token, request)).await;
    created.expect("there is room for a key").into_inner().secret_key
}

/// Embeds the same text as many items of a stream. Counts the answers.
async fn stream(stack: &Stack, credential: &str, items: usize, answers: &AtomicUsize) {
    let item = |id: usize| EmbedStreamRequest { id: id.to_string(), sentence: many(1).sentences.remove(0) };
    let items = futures::stream::iter((0..items).map(item));
    let stream = stack.embedder_client().embed_stream(bearing(credential, items)).await;
    let mut stream = stream.expect("it is accepted").into_inner();
    while stream.message().await.expect("it goes on").is_some() {
        answers.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_key_does_not_delay_calls_of_its_owner() {
    const BULK: usize = 192;
    const OWN: usize = 32;
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let key = bulk_key(&stack, &token).await;
    let done = Arc::new(AtomicUsize::new(0));
    let job: Vec<_> = (0..BULK)
        .map(|_| {
            let (mut client, call, done) =
                (stack.embedder_client(), bearing(&key, many(32)), Arc::clone(&done));
            tokio::spawn(async move {
                client.embed(call).await.expect("it is admitted");
                done.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    let before = until(async || Some(done.load(Ordering::Relaxed)).filter(|&done| done >= 2)).await;
    // Calls of the same size, which would otherwise wait for all of those.
    let calls = (0..OWN).map(|_| {
        let (mut client, call) = (stack.embedder_client(), bearing(&token, many(32)));
        async move { client.embed(call).await.expect("it is admitted") }
    });
    futures::future::join_all(calls).await;
    let meanwhile = done.load(Ordering::Relaxed) - before;
    // A seventh of the owner's calls, and those in the passes that ran when these came.
    assert!(meanwhile <= OWN * 2 / 3, "{meanwhile} calls of the job beside {OWN} others");
    assert!(before + meanwhile < BULK, "the job ended too early");
    for call in job {
        call.await.unwrap();
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_stream_gets_a_fraction_of_its_owners_share() {
    const ITEMS: usize = 4_000;
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let key = bulk_key(&stack, &token).await;
    let (own, bulk) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let meanwhile = tokio::select! {
        () = stream(&stack, &token, ITEMS, &own) => bulk.load(Ordering::Relaxed),
        () = stream(&stack, &key, 2 * ITEMS, &bulk) => panic!("{own:?} answers beside {bulk:?} of the job"),
    };
    assert_eq!(own.into_inner(), ITEMS);
    assert!((1..ITEMS / 2).contains(&meanwhile), "{meanwhile} items of the job beside {ITEMS}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crowd_of_closed_loop_clients_is_served_without_rejections() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    for (clients, size) in [(64, 32), (256, 1), (32, 256)] {
        let crowd = (0..clients).map(|_| {
            let (mut client, token) = (stack.embedder_client(), token.clone());
            async move {
                for _ in 0..2 {
                    let answer = client.embed(bearing(&token, many(size))).await.unwrap();
                    assert_eq!(answer.into_inner().embeddings.len(), size);
                }
            }
        });
        futures::future::join_all(crowd).await;
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn request_that_cannot_meet_its_deadline_is_rejected_at_once() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let jobs: Vec<_> = (0..6)
        .map(|_| {
            let (mut client, call) = (stack.embedder_client(), bearing(&token, many(2_000)));
            tokio::spawn(async move { client.embed(call).await.map(|_| ()) })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut call = bearing(&token, many(2_000));
    call.set_timeout(Duration::from_millis(300));
    let rejected = stack.embedder_client().embed(call).await.unwrap_err();
    // Not DEADLINE_EXCEEDED: it did not wait for its deadline.
    assert_eq!((rejected.code(), reason(&rejected)), (Code::ResourceExhausted, Reason::Overloaded));
    assert!(rejected.message().contains("cannot finish before its deadline"), "{rejected}");
    assert!(Error::from(&rejected).retry_after().is_some());
    // Over HTTP, too.
    let address = stack.gateway.address;
    let body = serde_json::json!({ "sentence": many(2_000).sentences }).to_string();
    let headers = [("authorization", &*format!("Bearer {token}")), ("content-type", "application/json")];
    let post = async |timeout: &str, body: &str| {
        let headers = [&headers[..], &[("grpc-timeout", timeout)]].concat();
        HttpClient::new(address).send("POST", "/embed", &headers, body).await
    };
    let rejected = post("300m", &body).await;
    assert_eq!(rejected.status, 429, "{rejected:?}");
    assert!(!rejected.header("retry-after").is_empty());
    assert!(rejected.text_of("message").contains("cannot finish before its deadline"), "{rejected:?}");
    assert_eq!(post("300", &body).await.status, 400);
    for job in jobs {
        job.await.unwrap().unwrap();
    }
    assert_eq!(post("20S", r#"{"sentence": "a"}"#).await.status, 200);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn request_beyond_the_maximum_queueing_time_is_rejected() {
    let stack = stack_with(&["--max-queue-seconds", "1"]).await;
    let token = stack.login().await.access_token;
    let calls = (0..64).map(|_| {
        let (mut client, call) = (stack.embedder_client(), bearing(&token, many(512)));
        async move { client.embed(call).await }
    });
    let outcomes = futures::future::join_all(calls).await;
    let rejected: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!((1..64).contains(&rejected.len()), "{} of 64 were rejected", rejected.len());
    for rejected in rejected {
        assert_eq!((rejected.code(), reason(rejected)), (Code::ResourceExhausted, Reason::Overloaded));
        assert!(rejected.message().contains("longer than the maximum queueing time of 1 s"), "{rejected}");
        let wait = Error::from(rejected).retry_after().expect("it has a retry delay");
        assert!(wait < Duration::from_secs(10), "{wait:?}");
    }
    stack.stop().await;
}
