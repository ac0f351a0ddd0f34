//! gRPC-Web over HTTP/1.1, as browsers use it.

use base64::{Engine, prelude::BASE64_STANDARD};
use muse_proto::v1::{
    EmbedResponse, EmbedStreamResponse, LoginResponse, embed_stream_response::Result as Outcome,
};
use muse_tests::{
    Stack,
    http_client::{HttpClient, HttpResponse},
};
use prost::Message;

/// Encodes a frame with a short ASCII message.
fn frame(message: &str) -> String {
    format!("\0\0\0\0{}{message}", char::from(u8::try_from(message.len()).expect("it is short")))
}

/// Encodes field 1 or 2 of a message, a short string.
fn field(number: u8, text: &str) -> String {
    format!(
        "{}{}{text}",
        char::from(number << 3 | 2),
        char::from(u8::try_from(text.len()).expect("it is short"))
    )
}

/// Decodes the messages and the trailers of a response.
fn read(mut body: &[u8]) -> (Vec<&[u8]>, String) {
    let mut messages = Vec::new();
    while let [kind, rest @ ..] = body {
        let (length, rest) = rest.split_first_chunk::<4>().expect("a frame has a length");
        let (content, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        if *kind == 0x80 {
            assert!(rest.is_empty(), "trailers come last");
            return (messages, String::from_utf8(content.to_vec()).expect("the answer is whole"));
        }
        messages.push(content);
        body = rest;
    }
    panic!("no trailers");
}

/// Decodes concatenated Base64, each part with its own padding.
fn decode(text: &[u8]) -> Vec<u8> {
    text.chunks(4).flat_map(|quantum| BASE64_STANDARD.decode(quantum).expect("the answer is whole")).collect()
}

async fn call(
    stack: &Stack,
    method: &str,
    token: &str,
    text: bool,
    messages: &str,
) -> (HttpResponse, Vec<u8>) {
    let (kind, body) = if text {
        ("application/grpc-web-text", BASE64_STANDARD.encode(messages))
    } else {
        ("application/grpc-web+proto", messages.to_owned())
    };
    let bearer = format!("Bearer {token}");
    let mut headers = vec![("content-type", kind), ("accept", kind), ("x-grpc-web", "1")];
    if !token.is_empty() {
        headers.push(("authorization", &bearer));
    }
    let answer = HttpClient::new(stack.gateway.address).send("POST", method, &headers, &body).await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").starts_with(kind.trim_end_matches("+proto")));
    let body = if text { decode(&answer.body) } else { answer.body.to_vec() };
    (answer, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_web_carries_responses_streams_and_errors() {
    let stack = Stack::start().await;
    for text in [false, true] {
        let login = frame(&(field(1, "admin") + &field(2, "admin")));
        let (_, body) = call(&stack, "/muse.v1.AuthService/Login", "", text, &login).await;
        let (messages, trailers) = read(&body);
        assert!(trailers.contains("grpc-status:0"), "{trailers}");
        let token = LoginResponse::decode(messages[0]).unwrap().access_token;

        let request = frame(&(field(1, "Hello") + &field(1, "world")));
        let embed = "/muse.v1.EmbedderService/Embed";
        let (answer, body) = call(&stack, embed, &token, text, &request).await;
        let (messages, trailers) = read(&body);
        assert!(trailers.contains("grpc-status:0"), "{trailers}");
        assert!(answer.header("server-timing").contains("forward;dur="));
        let embeddings = EmbedResponse::decode(messages[0]).unwrap().embeddings;
        assert_eq!((embeddings.len(), embeddings[1].dimension()), (2, 512));

        let items: String = ["a", "b", "c"].map(|id| frame(&(field(1, id) + &field(2, "Hello")))).concat();
        let (_, body) = call(&stack, "/muse.v1.EmbedderService/EmbedStream", &token, text, &items).await;
        let (messages, trailers) = read(&body);
        assert!(trailers.contains("grpc-status:0"), "{trailers}");
        let mut ids: Vec<String> = messages
            .iter()
            .map(|message| {
                let answer = EmbedStreamResponse::decode(*message).unwrap();
                assert!(matches!(answer.result, Some(Outcome::Embedding(_))));
                answer.id
            })
            .collect();
        ids.sort();
        assert_eq!(ids, ["a", "b", "c"]);

        let logout = "/muse.v1.AuthService/RevokeToken";
        for (method, token, request, status) in [
            (embed, "", &request, "grpc-status:16"),
            (embed, "x.y.z", &request, "grpc-status:16"),
            (embed, &token, &frame(""), "grpc-status:3"),
            ("/muse.v1.EmbedderService/NoMethod", &token, &request, "grpc-status:12"),
            ("/muse.v1.NoService/NoMethod", &token, &request, "grpc-status:12"),
            (logout, &token, &frame(""), "grpc-status:0"),
            (logout, &token, &frame(""), "grpc-status:16"),
        ] {
            let (_, body) = call(&stack, method, token, text, request).await;
            let (messages, trailers) = read(&body);
            assert!(trailers.contains(status), "{trailers}");
            if status != "grpc-status:0" {
                assert!(messages.is_empty());
                assert!(trailers.contains("grpc-status-details-bin:"), "{trailers}");
            }
        }
    }
    stack.stop().await;
}
