//! `EmbedStream`.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use muse_proto::{
    Error, Reason,
    v1::{
        EmbedRequest, EmbedStreamRequest, EmbedStreamResponse, RevokeTokenRequest,
        auth_service_client::AuthServiceClient, embed_stream_response::Result as Outcome,
        embedder_service_client::EmbedderServiceClient,
    },
};
use muse_tests::{Service, Stack, TIMEOUT, bearing, golden_sentences, largest_difference};
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use crate::{reason, sentences, timing};

fn item(id: impl ToString, sentence: &str) -> EmbedStreamRequest {
    EmbedStreamRequest { id: id.to_string(), sentence: sentence.to_owned() }
}

/// Opens a stream whose items come from the returned sender.
async fn open(
    stack: &Stack,
    token: &str,
) -> (mpsc::Sender<EmbedStreamRequest>, Streaming<EmbedStreamResponse>) {
    let (sender, mut items) = mpsc::channel(1);
    let items = stream::poll_fn(move |context| items.poll_recv(context));
    let answers = stack
        .embedder_client()
        .embed_stream(bearing(token, items))
        .await
        .expect("a stream begins")
        .into_inner();
    (sender, answers)
}

async fn next(answers: &mut Streaming<EmbedStreamResponse>) -> Result<Option<EmbedStreamResponse>, Status> {
    tokio::time::timeout(TIMEOUT, answers.message()).await.expect("an answer in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_items_have_the_vectors_of_embed() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let mut texts: Vec<String> =
        golden_sentences().into_iter().take(1_000).map(|golden| golden.text).collect();
    texts.push(String::new());
    let request = EmbedRequest { sentences: texts.clone(), ..EmbedRequest::default() };
    let expected =
        stack.embedder_client().embed(bearing(&token, request)).await.unwrap().into_inner().embeddings;

    let mut items: Vec<_> = texts.iter().enumerate().map(|(index, text)| item(index, text)).collect();
    // Invalid items do not affect the others.
    items.insert(500, item("too many bytes", &"x".repeat(300_000)));
    items.insert(10, item("too many tokens", &"한 ".repeat(20_000)));
    items.push(item("0", &texts[0]));
    let call = bearing(&token, stream::iter(items));
    let mut answers = stack.embedder_client().embed_stream(call).await.unwrap().into_inner();
    let mut seen = HashMap::<String, usize>::new();
    while let Some(answer) = next(&mut answers).await.unwrap() {
        *seen.entry(answer.id.clone()).or_default() += 1;
        match answer.result.unwrap() {
            Outcome::Embedding(vector) => {
                let whole = &expected[answer.id.parse::<usize>().unwrap()];
                assert!(largest_difference(&vector.to_vec(), &whole.to_vec()) <= 1e-5);
                assert_eq!(vector.token_count, whole.token_count);
            }
            Outcome::Error(error) => {
                assert!(answer.id.starts_with("too many"), "{error:?}");
                assert_eq!((error.code, error.reason.as_str()), (Code::InvalidArgument as i32, "TOO_LARGE"));
                assert!(error.message.starts_with("sentence: "), "{error:?}");
                assert!(error.message.contains("; the limit is "), "{error:?}");
            }
        }
    }
    assert_eq!(seen.len(), texts.len() + 2);
    assert_eq!(seen.values().sum::<usize>(), texts.len() + 3);
    assert_eq!(seen["0"], 2);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_answer_does_not_wait_for_further_items() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let (items, mut answers) = open(&stack, &token).await;
    for id in 0..3 {
        items.send(item(id, "one at a time")).await.unwrap();
        assert_eq!(next(&mut answers).await.unwrap().unwrap().id, id.to_string());
    }
    drop(items);
    assert_eq!(next(&mut answers).await.unwrap(), None);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_of_a_client_that_does_not_read_gets_backpressure() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let sent = Arc::new(AtomicUsize::new(0));
    // Without tokens: the subject is the reading, not the model.
    let (counter, text) = (Arc::clone(&sent), " ".repeat(1_000));
    let endless = stream::repeat_with(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        item("", &text)
    });
    let call = bearing(&token, endless);
    let answers = stack.embedder_client().embed_stream(call).await.unwrap().into_inner();
    let mut before = usize::MAX;
    let still = async {
        while before != sent.load(Ordering::Relaxed) {
            before = sent.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, still).await.expect("it stops to read");
    // 1 kB per item: at most the flow-control windows.
    assert!((1..20_000).contains(&before), "{before}");
    // Other calls are served meanwhile.
    stack.embedder_client().embed(bearing(&token, sentences(&["a"]))).await.unwrap();
    drop(answers);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_ends_soon_after_its_token_is_revoked() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let (items, mut answers) = open(&stack, &token).await;
    items.send(item("a", "a")).await.unwrap();
    next(&mut answers).await.unwrap();
    stack.auth_client().revoke_token(bearing(&token, RevokeTokenRequest {})).await.unwrap();
    let revoked = Instant::now();
    let rejected = next(&mut answers).await.unwrap_err();
    assert_eq!((rejected.code(), reason(&rejected)), (Code::Unauthenticated, Reason::TokenRevoked));
    assert!(revoked.elapsed() < Duration::from_secs(3), "{:?}", revoked.elapsed());
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_ends_at_its_deadline() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let (_items, mut pending) = mpsc::channel::<EmbedStreamRequest>(1);
    let mut call = bearing(&token, stream::poll_fn(move |context| pending.poll_recv(context)));
    call.set_timeout(Duration::from_millis(700));
    let mut answers = stack.embedder_client().embed_stream(call).await.unwrap().into_inner();
    let ended = next(&mut answers).await.unwrap_err();
    assert_eq!((ended.code(), reason(&ended)), (Code::DeadlineExceeded, Reason::DeadlineExceeded));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_item_ends_the_stream_as_invalid_argument() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let status = crate::limits::raw_call(&stack, &token, "EmbedStream", b"\x12\x02\xff\xfe").await;
    assert_eq!((status.code(), reason(&status)), (Code::InvalidArgument, Reason::InvalidArgument));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn items_of_a_disconnected_client_are_not_computed() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let text = "word ".repeat(4_000);
    let mut client = stack.embedder_client();
    let alone = client.embed(bearing(&token, sentences(&[&text]))).await.unwrap();
    let pass = timing(alone.metadata(), "forward");

    // Each item is one pass; the limit on unanswered items allows two.
    let call = bearing(&token, stream::iter(vec![item("", &text); 64]));
    let mut answers = client.embed_stream(call).await.unwrap().into_inner();
    next(&mut answers).await.unwrap();
    drop(answers);
    let after = client.embed(bearing(&token, sentences(&["a"]))).await.unwrap();
    let queue = timing(after.metadata(), "queue");
    // Not for most of the 64 passes; other programs of the machine may slow the few that had begun.
    assert!(queue < 16.0 * pass, "waited {queue} ms where a pass takes {pass} ms");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_answers_read_items_and_ends_streams() {
    for gateway_first in [true, false] {
        let stack = Stack::start().await;
        let token = stack.login().await.access_token;
        let (items, mut answers) = open(&stack, &token).await;
        items.send(item("a", "a")).await.unwrap();
        next(&mut answers).await.unwrap();
        let Stack { data: _data, auth, embedder, gateway } = stack;
        let (first, second) = if gateway_first { (gateway, embedder) } else { (embedder, gateway) };
        let stopped = tokio::spawn(async move {
            let started = Instant::now();
            first.stop().await;
            started.elapsed()
        });
        let ended = next(&mut answers).await.unwrap_err();
        assert_eq!((ended.code(), reason(&ended)), (Code::Unavailable, Reason::Unavailable), "{ended}");
        assert!(Error::from(&ended).retry_after().is_some(), "{ended}");
        drop((items, answers));
        let took = stopped.await.unwrap();
        assert!(took < Duration::from_secs(5), "{took:?}");
        second.stop().await;
        auth.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_items_wait_where_unary_calls_are_rejected() {
    let data = tempfile::tempdir().unwrap();
    let auth = muse_tests::start_auth(muse_tests::auth_config(data.path())).await;
    let embedder =
        muse_tests::start_embedder(&muse_tests::model_dir(), auth.address, &["--queue-tokens", "600"]).await;
    muse_tests::wait_until_serving(muse_tests::channel(embedder.address)).await;
    let token = muse_tests::login(muse_tests::channel(auth.address)).await.access_token;
    let streams = (0..8).map(|_| {
        let mut client = muse_proto::v1::embedder_service_client::EmbedderServiceClient::new(
            muse_tests::channel(embedder.address),
        );
        let items = stream::iter((0..300).map(|id| item(id, "one two three four five six")));
        let call = bearing(&token, items);
        async move {
            let answers = client.embed_stream(call).await.unwrap().into_inner();
            answers
                .filter(|answer| {
                    let result = answer.as_ref().unwrap().result.as_ref();
                    std::future::ready(matches!(result, Some(Outcome::Embedding(_))))
                })
                .count()
                .await
        }
    });
    assert_eq!(futures::future::join_all(streams).await, [300; 8]);
    embedder.stop().await;
    auth.stop().await;
}

/// All calls share one connection between gateway and embedder: unread data of some calls must not
/// exhaust the window of the others.
#[tokio::test(flavor = "multi_thread")]
async fn unread_streams_do_not_block_other_calls() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let mut streams = Vec::new();
    for _ in 0..24 {
        // More items than are answered while nobody reads the answers, then large items.
        let (few, many) = (item(0, "a"), item(0, &" ".repeat(60_000)));
        let endless = stream::repeat(few).take(2_000).chain(stream::repeat(many));
        streams.push(stack.embedder_client().embed_stream(bearing(&token, endless)).await.unwrap());
    }
    // Wait until the streams are blocked.
    tokio::time::sleep(Duration::from_secs(6)).await;
    for _ in 0..3 {
        let call = bearing(&token, EmbedRequest { sentences: vec!["a".to_owned()], ..Default::default() });
        let answer = tokio::time::timeout(TIMEOUT / 2, async { stack.embedder_client().embed(call).await });
        let answer = answer.await.expect("it is answered in time");
        assert!(answer.is_ok_and(|answer| answer.into_inner().embeddings.len() == 1));
    }
    drop(streams);
    stack.stop().await;
}

/// Auth and an embedder without a gateway, because a gateway would end such streams.
async fn start_embedder_only(options: &[&str]) -> (tempfile::TempDir, Service, Service, String) {
    let data = tempfile::tempdir().expect("there is a place for temporary files");
    let auth = muse_tests::start_auth(muse_tests::auth_config(data.path())).await;
    let embedder = muse_tests::start_embedder(&muse_tests::model_dir(), auth.address, options).await;
    muse_tests::wait_until_serving(muse_tests::channel(embedder.address)).await;
    let token = muse_tests::login(muse_tests::channel(auth.address)).await.access_token;
    (data, auth, embedder, token)
}

/// An endless stream whose answers are not read: they fill the caller's window of 64 KiB.
async fn open_unread(
    embedder: &Service,
    token: &str,
    sent: &Arc<AtomicUsize>,
) -> Streaming<EmbedStreamResponse> {
    let sent = Arc::clone(sent);
    let endless = stream::repeat_with(move || {
        sent.fetch_add(1, Ordering::Relaxed);
        item("x".repeat(1_000), "a")
    });
    let mut client = EmbedderServiceClient::new(muse_tests::channel(embedder.address));
    client.embed_stream(bearing(token, endless)).await.expect("a stream begins").into_inner()
}

/// Waits until a counter stops increasing.
async fn until_constant(counter: &AtomicUsize) -> usize {
    let mut before = usize::MAX;
    muse_tests::until(async || {
        let now = counter.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(1)).await;
        (std::mem::replace(&mut before, now) == now).then_some(now)
    })
    .await
}

/// Reads the rest of the stream and returns its status. Queued answers must have been dropped.
async fn final_status(mut answers: Streaming<EmbedStreamResponse>) -> Status {
    let mut read = 0;
    loop {
        match next(&mut answers).await {
            Ok(Some(_)) => read += 1,
            Ok(None) => panic!("it ends without a status"),
            Err(status) => {
                // The content of the windows; answers behind them were dropped.
                assert!(read < 2_000, "{read}");
                return status;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_stream_ends_with_its_token() {
    let (_data, auth, embedder, token) = start_embedder_only(&[]).await;
    let sent = Arc::default();
    let answers = open_unread(&embedder, &token, &sent).await;
    until_constant(&sent).await;
    let mut client = AuthServiceClient::new(muse_tests::channel(auth.address));
    client.revoke_token(bearing(&token, RevokeTokenRequest {})).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let ended = final_status(answers).await;
    assert_eq!((ended.code(), reason(&ended)), (Code::Unauthenticated, Reason::TokenRevoked));
    embedder.stop().await;
    auth.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_stream_ends_after_the_read_timeout() {
    let (_data, auth, embedder, token) = start_embedder_only(&["--stream-read-timeout", "2"]).await;
    let sent = Arc::default();
    let answers = open_unread(&embedder, &token, &sent).await;
    until_constant(&sent).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let ended = final_status(answers).await;
    assert_eq!((ended.code(), reason(&ended)), (Code::DeadlineExceeded, Reason::DeadlineExceeded));
    assert_eq!(ended.message(), "no answer was read for 2 seconds");

    // The stream of a slow reader continues: each read resets the timeout.
    let items = stream::iter((0..60).map(|id| item(id, "a")));
    let mut client = EmbedderServiceClient::new(muse_tests::channel(embedder.address));
    let mut answers = client.embed_stream(bearing(&token, items)).await.unwrap().into_inner();
    let mut read = 0;
    while next(&mut answers).await.unwrap().is_some() {
        read += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(read, 60);
    embedder.stop().await;
    auth.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_beyond_the_limit_of_its_user_is_rejected() {
    let (_data, auth, embedder, token) = start_embedder_only(&[]).await;
    let idle = || async {
        let mut client = EmbedderServiceClient::new(muse_tests::channel(embedder.address));
        client.embed_stream(bearing(&token, stream::pending())).await
    };
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(idle().await.unwrap());
    }
    let rejected = idle().await.unwrap_err();
    assert_eq!((rejected.code(), reason(&rejected)), (Code::ResourceExhausted, Reason::Overloaded));
    assert!(rejected.message().contains("the limit is 64 a user"), "{rejected}");
    drop(open);
    embedder.stop().await;
    auth.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn item_with_a_long_id_ends_the_stream() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let items = stream::iter([item("x".repeat(1_024), "a"), item("x".repeat(1_025), "a")]);
    let mut answers =
        stack.embedder_client().embed_stream(bearing(&token, items)).await.unwrap().into_inner();
    let mut read = 0;
    let ended = loop {
        match next(&mut answers).await {
            Ok(answer) => read += answer.map_or_else(|| panic!("it ends"), |answer| answer.id.len()),
            Err(ended) => break ended,
        }
    };
    assert_eq!((read, ended.code(), reason(&ended)), (1_024, Code::InvalidArgument, Reason::TooLarge));
    assert_eq!(ended.message(), "id: 1025 bytes; the limit is 1024 an item");
    stack.stop().await;
}
