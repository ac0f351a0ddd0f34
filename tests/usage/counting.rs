//! What is counted.

use futures::{StreamExt, stream};
use muse_proto::v1::{
    CreateKeyRequest, EmbedRequest, EmbedStreamRequest, GetModelRequest, TokenizeRequest,
    key_service_client::KeyServiceClient,
};
use muse_tests::{Stack, bearing, channel, http_client::HttpClient, until};
use serde_json::json;

use crate::{stored_usage, until_stored};

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_users_and_keys_are_counted_by_method() {
    let stack = Stack::start().await;
    let (auth, admin) = (stack.auth.address, stack.login().await.access_token);
    let create = CreateKeyRequest { name: "a key".to_owned(), ..CreateKeyRequest::default() };
    let created = KeyServiceClient::new(channel(auth)).create_key(bearing(&admin, create)).await.unwrap();
    let created = created.into_inner();
    let key_id = created.key.unwrap().id;

    let mut client = stack.embedder_client();
    let sentences = ["Hello", "Where is the library?"].map(str::to_owned).to_vec();
    let request = EmbedRequest { sentences: sentences.clone(), ..EmbedRequest::default() };
    let embeddings = client.embed(bearing(&admin, request)).await.unwrap().into_inner().embeddings;
    let tokens: u64 = embeddings.iter().map(|embedding| u64::from(embedding.token_count)).sum();
    // These count no tokens.
    client.tokenize(bearing(&admin, TokenizeRequest { sentences: sentences.clone() })).await.unwrap();
    client.get_model(bearing(&admin, GetModelRequest {})).await.unwrap();
    let invalid = EmbedRequest { dimensions: 513, ..EmbedRequest::default() };
    client.embed(bearing(&admin, invalid)).await.unwrap_err();
    let items =
        sentences.iter().map(|sentence| EmbedStreamRequest { id: String::new(), sentence: sentence.clone() });
    let items = stream::iter(items.collect::<Vec<_>>());
    let responses = client.embed_stream(bearing(&admin, items)).await.unwrap().into_inner();
    assert_eq!(responses.count().await, 2);
    let row = until_stored(auth, &admin, "admin", |row| row.requests >= 3 && row.sentences >= 4).await;
    assert_eq!((row.requests, row.sentences, row.tokens, row.refused), (3, 4, 2 * tokens, 0));

    // With a key, over OpenAI's API, which reports the same number of tokens.
    let openai = HttpClient::new(stack.gateway.address);
    let body = json!({ "model": "text-embedding-3-small", "input": sentences });
    let response = openai.json("POST", "/v1/embeddings", &created.secret_key, &body).await;
    assert_eq!(response.json()["usage"]["prompt_tokens"], json!(tokens));
    let row = until(async || {
        Some(stored_usage(auth, &admin, "admin", &key_id).await).filter(|row| row.requests > 0)
    })
    .await;
    assert_eq!((row.requests, row.sentences, row.tokens), (1, 2, tokens));

    // The last usage is reported at the shutdown.
    client.tokenize(bearing(&admin, TokenizeRequest { sentences })).await.unwrap();
    let Stack { data: _data, auth: auth_service, embedder, gateway } = stack;
    gateway.stop().await;
    embedder.stop().await;
    assert_eq!(stored_usage(auth, &admin, "admin", "").await.requests, 4);
    auth_service.stop().await;
}
