//! A quota over two embedders and a gateway.

use std::time::{Duration, Instant};

use futures::StreamExt;
use muse_proto::{
    Error, Reason,
    v1::{
        EmbedStreamRequest, GetModelRequest, Quota, QuotaPeriod, SetQuotaRequest, TokenizeRequest,
        embed_stream_response::Result as Outcome, user_service_client::UserServiceClient,
    },
};
use muse_tests::{
    auth_config, bearing, channel, http_client::HttpClient, login, model_dir, start_auth, start_embedder,
    start_gateway, until, wait_until_serving,
};
use serde_json::json;
use tokio::sync::mpsc;
use tonic::Code;

use crate::{embed, embedder, until_stored};

/// Time from the report that exceeds a quota until all embedders enforce it.
const ENFORCED_WITHIN: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn quota_is_enforced_on_all_embedders_within_2_s() {
    let data = tempfile::tempdir().unwrap();
    let auth = start_auth(auth_config(data.path())).await;
    let (model, one_core) = (model_dir(), ["--threads", "1"]);
    let (first, second) = tokio::join!(
        start_embedder(&model, auth.address, &one_core),
        start_embedder(&model, auth.address, &one_core)
    );
    let gateway = start_gateway(auth.address, second.address, &[]).await;
    for address in [first.address, second.address, gateway.address] {
        wait_until_serving(channel(address)).await;
    }
    let admin = login(channel(auth.address)).await.access_token;
    let limit = async |tokens| {
        let quota = Some(Quota { tokens, period: QuotaPeriod::Month.into() });
        let request = SetQuotaRequest { username: "admin".to_owned(), quota };
        UserServiceClient::new(channel(auth.address)).set_quota(bearing(&admin, request)).await.unwrap();
    };
    let rest = HttpClient::new(gateway.address);
    let remaining = async || {
        let response = rest.get("/tokenize?sentence=Hello", &admin).await;
        assert_eq!(response.status, 200, "it is not limited");
        response.header("x-ratelimit-remaining-tokens").to_owned()
    };
    assert_eq!(remaining().await, "");
    limit(20).await;
    until(async || (remaining().await == "20").then_some(())).await;

    // A stream on the other embedder, open before.
    let (items, received) = mpsc::unbounded_channel();
    let items_of_stream = futures::stream::unfold(received, async |mut received| {
        let item: EmbedStreamRequest = received.recv().await?;
        Some((item, received))
    });
    let item = |id: &str| EmbedStreamRequest { id: id.to_owned(), sentence: "Hello".to_owned() };
    items.send(item("before")).unwrap();
    let opened = embedder(second.address).embed_stream(bearing(&admin, items_of_stream)).await.unwrap();
    let mut responses = opened.into_inner();
    let before = responses.next().await.unwrap().unwrap();
    assert!(matches!(before.result, Some(Outcome::Embedding(_))), "{before:?}");

    let mut used = 0;
    while used < 20 {
        used += embed(&mut embedder(first.address), &admin).await.unwrap();
    }
    until_stored(auth.address, &admin, "admin", |row| row.tokens >= 20).await;
    let reported = Instant::now();
    for address in [first.address, second.address] {
        let rejected = until(async || embed(&mut embedder(address), &admin).await.err()).await;
        assert_eq!(rejected.code(), Code::ResourceExhausted);
        let error = Error::from(&rejected);
        assert_eq!(error.reason(), Reason::QuotaExhausted);
        assert!(
            error.message().starts_with("The quota of the user, 20 tokens, is exhausted until 20"),
            "{error}"
        );
        let wait = error.retry_after().unwrap();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(31 * 86_400), "{wait:?}");
    }
    println!("enforced {:?} after the report", reported.elapsed());
    assert!(reported.elapsed() < ENFORCED_WITHIN, "{:?}", reported.elapsed());

    // Streams: further items, and new ones. Other methods are not limited.
    items.send(item("after")).unwrap();
    let after = responses.next().await.unwrap().unwrap();
    let Some(Outcome::Error(error)) = after.result else { panic!("{after:?}") };
    assert_eq!((&*after.id, &*error.reason), ("after", "QUOTA_EXHAUSTED"));
    drop(items);
    assert!(responses.next().await.is_none(), "the stream ends as usual");
    let mut client = embedder(second.address);
    let no_items = futures::stream::pending::<EmbedStreamRequest>();
    let rejected = client.embed_stream(bearing(&admin, no_items)).await.map(drop).unwrap_err();
    assert_eq!(Error::from(&rejected).reason(), Reason::QuotaExhausted);
    let sentences = vec!["Hello".to_owned()];
    client.tokenize(bearing(&admin, TokenizeRequest { sentences })).await.unwrap();
    client.get_model(bearing(&admin, GetModelRequest {})).await.unwrap();

    // Over HTTP, with the state of the quota.
    until(async || (remaining().await == "0").then_some(())).await;
    let exhausted = rest.get("/embed?sentence=Hello", &admin).await;
    let openai = json!({ "model": "text-embedding-3-small", "input": "Hello" });
    let openai = rest.json("POST", "/v1/embeddings", &admin, &openai).await;
    for response in [&exhausted, &openai] {
        assert_eq!((response.status.as_u16(), response.header("x-should-retry")), (429, "false"));
        assert_eq!(response.header("x-ratelimit-limit-tokens"), "20");
        let wait: u64 = response.header("retry-after").parse().unwrap();
        assert!((1..=31 * 86_400).contains(&wait));
    }
    assert_eq!(exhausted.json()["reason"], "QUOTA_EXHAUSTED");
    assert!(exhausted.json()["message"].as_str().unwrap().contains("is exhausted until"));
    assert_eq!(openai.json()["error"]["code"], "insufficient_quota");
    // Two calls and two streams on the embedders, two calls through the gateway. Calls that were
    // made while the rejection was awaited may be among the answered ones only.
    until_stored(auth.address, &admin, "admin", |row| row.refused >= 6).await;

    limit(1_000_000).await;
    until(async || embed(&mut embedder(first.address), &admin).await.ok()).await;
    until(async || embed(&mut embedder(second.address), &admin).await.ok()).await;
    limit(0).await;
    until(async || remaining().await.is_empty().then_some(())).await;
    gateway.stop().await;
    first.stop().await;
    second.stop().await;
    auth.stop().await;
}
