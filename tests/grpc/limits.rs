//! What bad and large requests get.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use muse_proto::{Reason, v1::EmbedRequest};
use muse_tests::{Stack, bearing};
use tonic::{Code, Status};

use crate::{reason, sentences};

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_get_their_reason_and_the_service_goes_on() {
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
        let refused = client.embed(bearing(&token, request)).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused)), (Code::InvalidArgument, why));
        assert!(refused.message().contains(text), "{refused}");
    }
    let beyond = EmbedRequest { sentences: vec!["x".repeat(200_000); 100], ..EmbedRequest::default() };
    let refused = client.embed(bearing(&token, beyond)).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused)), (Code::InvalidArgument, Reason::TooLarge));
    assert!(refused.message().contains(&format!("the limit is: {} bytes", 16 << 20)), "{refused}");

    // What looks odd but is text has a vector.
    let odd = sentences(&["", "   ", "a\0b", "\u{fffd}", "\u{10ffff}"]);
    assert_eq!(client.embed(bearing(&token, odd)).await.unwrap().into_inner().embeddings.len(), 5);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_sentence_and_a_large_request_are_served_whole() {
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

/// Sends bytes that no generated client would.
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
async fn invalid_utf8_is_the_caller_s_fault() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    for malformed in [&b"\x0a\x02\xff\xfe"[..], &b"\x0a\x7f"[..], &b"\xff\xff\xff"[..]] {
        let status = raw_call(&stack, &token, "Embed", malformed).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    assert_eq!(raw_call(&stack, &token, "Embed", b"\x0a\x01a").await.code(), Code::Ok);
    stack.stop().await;
}
