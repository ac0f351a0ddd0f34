//! Clients of OpenAI's API and of text-embeddings-inference, and the examples of the page on
//! connecting programs.

use muse_proto::v1::{
    CreateKeyRequest, Quota, QuotaPeriod, TokenizeRequest, key_service_client::KeyServiceClient,
};
use muse_tests::{Stack, bearing, run_with_key, sdk_program};

#[tokio::test(flavor = "multi_thread")]
async fn openai_sdks_work_unmodified() {
    let stack = Stack::start().await;
    let tokens = stack.login().await;
    let sentence = "This is sentence example.";
    let call = TokenizeRequest { sentences: vec![sentence.to_owned()] };
    let tokenized = stack.embedder_client().tokenize(bearing(&tokens.access_token, call)).await;
    let tokenized = tokenized.expect("it is tokenized").into_inner();
    let ids: Vec<String> = tokenized.sentences[0].ids.iter().map(u32::to_string).collect();
    let create = CreateKeyRequest {
        name: "limited".to_owned(),
        quota: Some(Quota { tokens: 5, period: QuotaPeriod::Month.into() }),
        ..CreateKeyRequest::default()
    };
    let created =
        KeyServiceClient::new(stack.channel()).create_key(bearing(&tokens.access_token, create)).await;
    let limited = created.expect("a key is created").into_inner().secret_key;
    let status = sdk_program("python")
        .arg("tests/python/sdks.py")
        .env("OPENAI_BASE_URL", format!("http://{}/v1", stack.gateway.address))
        .env("OPENAI_API_KEY", tokens.access_token)
        .env("REFRESH_TOKEN", tokens.refresh_token)
        .env("QUOTA_KEY", limited)
        .env("SENTENCE", sentence)
        .env("SENTENCE_IDS", ids.join(","))
        .status()
        .await
        .expect("Python starts");
    assert!(status.success(), "{status}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_embeddings_inference_clients_work_unmodified() {
    run_with_key(sdk_program("python").arg("tests/python/tei.py")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn examples_of_the_connecting_page_work() {
    run_with_key(sdk_program("python").arg("tests/python/connecting.py")).await;
}
