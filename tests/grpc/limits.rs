//! Invalid and large requests.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use muse_proto::{
    Reason,
    v1::{EmbedRequest, EmbedStreamRequest, LoginRequest, TokenizeRequest},
};
use muse_tests::{Stack, bearing, largest_difference};
use tonic::{Code, Status, codec::CompressionEncoding};

use crate::{reason, sentences};

#[tokio::test(flavor = "multi_thread")]
async fn invalid_request_gets_its_reason_and_the_service_continues() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let mut client = stack.embedder_client();
    let million = "x".repeat(1_000_000);
    let cases: [(EmbedRequest, Reason, &str); 4] = [
        (sentences(&[]), Reason::InvalidArgument, "at least one sentence"),
        (sentences(&vec!["a"; 10_000]), Reason::TooLarge, "10000 sentences; the limit is 4096"),
        (sentences(&["a", &million]), Reason::TooLarge, "sentences[1]: 1000000 bytes; the limit is 262144"),
        (
            sentences(&["한 ".repeat(20_000).as_str()]),
            Reason::TooLarge,
            "tokens; the limit is 8192 a sentence",
        ),
    ];
    for (request, why, text) in cases {
        let rejected = client.embed(bearing(&token, request)).await.unwrap_err();
        assert_eq!((rejected.code(), reason(&rejected)), (Code::InvalidArgument, why));
        assert!(rejected.message().contains(text), "{rejected}");
    }
    let beyond = EmbedRequest { sentences: vec!["x".repeat(200_000); 100], ..EmbedRequest::default() };
    let rejected = client.embed(bearing(&token, beyond)).await.unwrap_err();
    assert_eq!((rejected.code(), reason(&rejected)), (Code::InvalidArgument, Reason::TooLarge));
    assert!(rejected.message().contains(&format!("the limit is: {} bytes", 16 << 20)), "{rejected}");

    // Unusual but valid texts have vectors.
    let odd = sentences(&["", "   ", "a\0b", "\u{fffd}", "\u{10ffff}"]);
    assert_eq!(client.embed(bearing(&token, odd)).await.unwrap().into_inner().embeddings.len(), 5);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_sentence_and_large_request_are_served() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let mut client = stack.embedder_client();
    let long = "word ".repeat(8_000);
    let answer = client.embed(bearing(&token, sentences(&[&long, "a"]))).await.unwrap().into_inner();
    assert_eq!(answer.embeddings.len(), 2);
    let many = EmbedRequest {
        sentences: (0..4_096).map(|n| format!("sentence {n}")).collect(),
        ..EmbedRequest::default()
    };
    let answer = client.embed(bearing(&token, many)).await.unwrap().into_inner();
    assert_eq!(answer.embeddings.len(), 4_096);
    let one = client.embed(bearing(&token, sentences(&["sentence 4095"]))).await.unwrap().into_inner();
    let difference =
        muse_tests::largest_difference(&one.embeddings[0].to_vec(), &answer.embeddings[4_095].to_vec());
    assert!(difference <= 1e-5, "{difference}");
    stack.stop().await;
}

/// Calls a method with raw bytes as the message.
pub(crate) async fn raw_call(stack: &Stack, token: &str, method: &str, message: &[u8]) -> Status {
    let mut channel = stack.channel();
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).expect("a short message").to_be_bytes());
    framed.extend_from_slice(message);
    let request = http::Request::post(format!("/muse.v1.EmbedderService/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {token}"))
        .body(tonic::body::Body::new(Full::new(Bytes::from(framed))))
        .expect("the request is well-formed");
    std::future::poll_fn(|cx| tonic::codegen::Service::<http::Request<_>>::poll_ready(&mut channel, cx))
        .await
        .expect("the gateway is there");
    let response = tonic::codegen::Service::call(&mut channel, request).await.expect("it answers");
    if let Some(status) = Status::from_header_map(response.headers()) {
        return status;
    }
    let trailers = response
        .into_body()
        .collect()
        .await
        .expect("the body is whole")
        .trailers()
        .cloned()
        .unwrap_or_default();
    Status::from_header_map(&trailers).expect("there is a status")
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_utf8_is_an_invalid_argument() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    for malformed in [&b"\x0a\x02\xff\xfe"[..], &b"\x0a\x7f"[..], &b"\xff\xff\xff"[..]] {
        let status = raw_call(&stack, &token, "Embed", malformed).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    assert_eq!(raw_call(&stack, &token, "Embed", b"\x0a\x01a").await.code(), Code::Ok);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokenize_stops_at_its_token_limit() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let mut client = stack.embedder_client();
    let most = TokenizeRequest { sentences: vec!["a ".repeat(131_072); 2] };
    let answer = client.tokenize(bearing(&token, most)).await.unwrap().into_inner().sentences;
    assert_eq!(answer.iter().map(|sentence| sentence.ids.len()).sum::<usize>(), 262_144);
    assert!(answer.iter().all(|sentence| sentence.tokens.len() == 131_072 && sentence.tokens[0] == "▁a"));
    let last = answer[0].bytes.last().unwrap();
    assert_eq!((last.start, last.end), (262_141, 262_143));

    let beyond =
        TokenizeRequest { sentences: vec!["a ".repeat(131_072), "a ".repeat(131_072), "a".to_owned()] };
    let rejected = client.tokenize(bearing(&token, beyond)).await.unwrap_err();
    assert_eq!((rejected.code(), reason(&rejected)), (Code::InvalidArgument, Reason::TooLarge));
    let text = "sentences: more than 262144 tokens; the limit is 262144 a request";
    assert_eq!(rejected.message(), text);
    let rejected = client.embed(bearing(&token, sentences(&vec!["a ".repeat(8_000).as_str(); 33]))).await;
    assert_eq!(rejected.unwrap_err().message(), text);
    stack.stop().await;
}

/// Each message repeats a field of two bytes up to the maximum size.
#[tokio::test(flavor = "multi_thread")]
async fn tiny_fields_are_counted_before_they_are_decoded() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let tiny = |field: &[u8; 2]| field.repeat(8_000_000);
    let in_one = |ids: Vec<u8>| [vec![0x12, 0x80, 0xc8, 0xd0, 0x07], ids].concat();
    let cases = [
        (tiny(b"\x0a\0"), "sentences: 8000000 sentences; the limit is 4096 a request"),
        (tiny(b"\x12\0"), "token_ids: 8000000 sentences; the limit is 4096 a request"),
        (in_one(tiny(b"\x08\x07")), "token_ids[0]: 8000002 tokens; the limit is 8192 a sentence"),
        // Unknown fields and groups are skipped.
        (tiny(b"\x7a\0"), "sentences: at least one sentence is needed"),
        (tiny(b"\x7b\x7c"), "sentences: at least one sentence is needed"),
    ];
    for (message, text) in cases {
        let status = raw_call(&stack, &token, "Embed", &message).await;
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, text));
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_compressed_with_gzip_are_served_within_the_limits() {
    let stack = Stack::start().await;
    let tokens = {
        let login = LoginRequest { username: "admin".to_owned(), password: "admin".to_owned() };
        let mut client = stack.auth_client().send_compressed(CompressionEncoding::Gzip);
        client.login(login).await.unwrap().into_inner()
    };
    let token = tokens.access_token;
    let mut client = stack.embedder_client().send_compressed(CompressionEncoding::Gzip);
    let texts = sentences(&["some text", "another"]);
    let answer = client.embed(bearing(&token, texts.clone())).await.unwrap().into_inner();
    let plain = stack.embedder_client().embed(bearing(&token, texts)).await.unwrap().into_inner();
    assert!(largest_difference(&answer.embeddings[1].to_vec(), &plain.embeddings[1].to_vec()) <= 1e-5);

    // 64 MiB of spaces compress to about 60 kB.
    let bomb = EmbedRequest { sentences: vec![" ".repeat(1 << 20); 64], ..EmbedRequest::default() };
    let rejected = client.embed(bearing(&token, bomb)).await.unwrap_err();
    assert_eq!((rejected.code(), reason(&rejected)), (Code::InvalidArgument, Reason::TooLarge), "{rejected}");
    let bomb = LoginRequest { username: "a".repeat(1 << 20), password: String::new() };
    let mut auth = stack.auth_client().send_compressed(CompressionEncoding::Gzip);
    let rejected = auth.login(bomb).await.unwrap_err();
    assert_eq!((rejected.code(), reason(&rejected)), (Code::InvalidArgument, Reason::TooLarge), "{rejected}");

    // Also an item of a stream.
    let item = EmbedStreamRequest { id: "a".to_owned(), sentence: "some text".to_owned() };
    let call = bearing(&token, futures::stream::iter([item]));
    let mut answers = client.embed_stream(call).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().id, "a");
    stack.stop().await;
}
