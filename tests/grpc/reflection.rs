//! Server reflection.

use muse_tests::{Stack, http_client::HttpClient};
use tonic::{Code, Request};
use tonic_reflection::pb;

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_the_services_in_both_versions() {
    let stack = Stack::start().await;
    let wanted = [
        "grpc.health.v1.Health",
        "muse.v1.AuthService",
        "muse.v1.EmbedderService",
        "muse.v1.KeyService",
        "muse.v1.UsageService",
        "muse.v1.UserService",
    ];
    macro_rules! services {
        ($version:ident) => {{
            use pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };
            let list = MessageRequest::ListServices(String::new());
            let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
            let mut client = ServerReflectionClient::new(stack.channel());
            let requests = futures::stream::iter([request]);
            let mut answers =
                client.server_reflection_info(Request::new(requests)).await.unwrap().into_inner();
            match answers.message().await.unwrap().unwrap().message_response {
                Some(MessageResponse::ListServicesResponse(list)) => {
                    list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
                }
                other => panic!("{other:?}"),
            }
        }};
    }
    for names in [services!(v1), services!(v1alpha)] {
        for name in wanted {
            assert!(names.iter().any(|listed| listed == name), "{name} is not in {names:?}");
        }
        assert!(names.iter().all(|listed| listed != "muse.v1.RevocationService"), "{names:?}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_reports_errors_in_the_stream_and_is_limited() {
    let stack = Stack::start().await;
    macro_rules! check {
        ($version:ident) => {{
            use pb::$version::{
                ServerReflectionRequest,
                server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest::{self, *},
                server_reflection_response::MessageResponse,
            };
            let request = |message: Option<MessageRequest>| ServerReflectionRequest {
                host: String::new(),
                message_request: message,
            };
            let open = async |requests: Vec<_>| {
                let mut client = ServerReflectionClient::new(stack.channel());
                client.server_reflection_info(futures::stream::iter(requests)).await.unwrap().into_inner()
            };
            let internal = "muse.v1.RevocationService".to_owned();
            let mut responses = open(vec![
                request(Some(FileContainingSymbol("no.such.Symbol".to_owned()))),
                request(Some(FileContainingSymbol(internal))),
                request(Some(FileByFilename("no/such.proto".to_owned()))),
                request(Some(AllExtensionNumbersOfType("no.such.Type".to_owned()))),
                request(None),
                request(Some(FileContainingSymbol("muse.v1.AuthService".to_owned()))),
            ])
            .await;
            for code in
                [Code::NotFound, Code::NotFound, Code::NotFound, Code::NotFound, Code::InvalidArgument]
            {
                match responses.message().await.unwrap().unwrap().message_response {
                    Some(MessageResponse::ErrorResponse(error)) => assert_eq!(error.error_code, code as i32),
                    other => panic!("{other:?}"),
                }
            }
            match responses.message().await.unwrap().unwrap().message_response {
                Some(MessageResponse::FileDescriptorResponse(files)) => {
                    let text = String::from_utf8_lossy(&files.file_descriptor_proto[0]).into_owned();
                    assert!(text.contains("AuthService") && !text.contains("RevocationService"), "{text}");
                }
                other => panic!("{other:?}"),
            }
            assert!(responses.message().await.unwrap().is_none());

            let large = request(Some(FileContainingSymbol("x".repeat(3 << 20))));
            let rejected = open(vec![large]).await.message().await.unwrap_err();
            assert_eq!(rejected.code(), Code::ResourceExhausted, "{rejected:?}");
            assert!(rejected.message().len() < 100, "{} bytes", rejected.message().len());

            let list = request(Some(ListServices(String::new())));
            let mut many = open(vec![list; 1_001]).await;
            for _ in 0..1_000 {
                many.message().await.unwrap().unwrap();
            }
            assert_eq!(many.message().await.unwrap_err().code(), Code::ResourceExhausted);
        }};
    }
    check!(v1);
    check!(v1alpha);

    // A string of 127 bytes that is truncated after one; over gRPC-Web, because a gRPC client
    // cannot send it.
    let garbage = "\0\0\0\0\u{3}\n\u{7f}x";
    let kind = [("content-type", "application/grpc-web+proto")];
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let answer = HttpClient::new(stack.gateway.address).send("POST", path, &kind, garbage).await;
    let trailers = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(trailers.contains("grpc-status:3"), "{answer:?}");
    stack.stop().await;
}
