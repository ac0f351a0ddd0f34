//! OpenAI's SDK, LangChain and LlamaIndex work with only the base URL and the API key set.

use muse_proto::v1::TokenizeRequest;
use muse_tests::{Stack, bearing, sdk_program};

#[tokio::test(flavor = "multi_thread")]
async fn openai_sdks_work_unmodified() {
    let stack = Stack::start().await;
    let tokens = stack.login().await;
    let sentence = "This is sentence example.";
    let call = TokenizeRequest { sentences: vec![sentence.to_owned()] };
    let tokenized = stack.embedder_client().tokenize(bearing(&tokens.access_token, call)).await;
    let tokenized = tokenized.expect("it is tokenized").into_inner();
    let ids: Vec<String> = tokenized.sentences[0].ids.iter().map(u32::to_string).collect();
    let status = sdk_program("python")
        .arg("tests/python/sdks.py")
        .env("OPENAI_BASE_URL", format!("http://{}/v1", stack.gateway.address))
        .env("OPENAI_API_KEY", tokens.access_token)
        .env("REFRESH_TOKEN", tokens.refresh_token)
        .env("SENTENCE", sentence)
        .env("SENTENCE_IDS", ids.join(","))
        .status()
        .await
        .expect("Python starts");
    assert!(status.success(), "{status}");
    stack.stop().await;
}
