//! Users take turns, and who cannot be served soon is told when.

use std::time::Duration;

use muse_proto::{
    Error, Reason,
    v1::{AddUserRequest, EmbedRequest, LoginRequest, Role},
};
use muse_tests::{Stack, bearing, model_dir, start_auth, start_embedder, start_gateway};
use tonic::Code;

use crate::{reason, sentences, timing};

fn many(count: usize) -> EmbedRequest {
    EmbedRequest {
        sentences: vec!["one two three four five six seven eight".to_owned(); count],
        ..Default::default()
    }
}

async fn stack_with_longest_wait(milliseconds: &str) -> Stack {
    let data = tempfile::tempdir().expect("there is a place for temporary files");
    let auth = start_auth(muse_tests::auth_config(data.path())).await;
    let embedder = start_embedder(&model_dir(), auth.address, &["--longest-wait-ms", milliseconds]).await;
    let gateway = start_gateway(auth.address, embedder.address, &[]).await;
    let stack = Stack { data, auth, embedder, gateway };
    stack.wait_until_ready().await;
    stack
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_job_keeps_neither_another_user_nor_the_same_one_waiting() {
    // However slow the machine is, nobody is to be refused.
    let stack = stack_with_longest_wait("5000").await;
    let admin = stack.login().await.access_token;
    let (username, password) = ("maria", "correct horse battery");
    let user = AddUserRequest {
        username: username.to_owned(),
        password: password.to_owned(),
        role: Role::User.into(),
    };
    stack.user_client().add_user(bearing(&admin, user)).await.unwrap();
    let login = LoginRequest { username: username.to_owned(), password: password.to_owned() };
    let maria = stack.auth_client().login(login).await.unwrap().into_inner().access_token;

    let (mut client, call) = (stack.embedder_client(), bearing(&admin, many(4_096)));
    let job = tokio::spawn(async move { client.embed(call).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut queued = Vec::new();
    for token in [&maria, &admin, &maria] {
        let answer = stack.embedder_client().embed(bearing(token, sentences(&["a"]))).await.unwrap();
        queued.push(timing(answer.metadata(), "queue"));
    }
    assert!(!job.is_finished(), "the job was over too soon to tell");
    let job = job.await.unwrap().unwrap();
    let whole = timing(job.metadata(), "forward");
    assert_eq!(job.into_inner().embeddings.len(), 4_096);
    // A pass takes about a sixtieth of the job on two cores.
    assert!(
        queued.iter().all(|&queued| queued < whole / 4.0),
        "waited {queued:?} ms beside a job of {whole} ms"
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_would_wait_too_long_is_told_when_to_come_again() {
    let stack = stack_with_longest_wait("20").await;
    let token = stack.login().await.access_token;
    let calls = (0..64).map(|_| {
        let (mut client, call) = (stack.embedder_client(), bearing(&token, many(64)));
        async move { client.embed(call).await }
    });
    let outcomes = futures::future::join_all(calls).await;
    let refused: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!((1..64).contains(&refused.len()), "{} of 64 were refused", refused.len());
    for refused in refused {
        assert_eq!((refused.code(), reason(refused)), (Code::ResourceExhausted, Reason::Overloaded));
        let wait = Error::from(refused).retry_after().expect("it says when");
        assert!(wait < Duration::from_secs(10), "{wait:?}");
    }
    stack.stop().await;
}
