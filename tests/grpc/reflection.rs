//! Reflection.

use muse_tests::Stack;
use tonic::Request;
use tonic_reflection::pb;

#[tokio::test(flavor = "multi_thread")]
async fn reflection_tells_the_services_in_both_versions() {
    let stack = Stack::start().await;
    let wanted =
        ["grpc.health.v1.Health", "muse.v1.AuthService", "muse.v1.EmbedderService", "muse.v1.UserService"];
    macro_rules! services {
        ($version:ident) => {{
            use pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };
            let list = MessageRequest::ListServices(String::new());
            let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
            let mut client = ServerReflectionClient::new(stack.channel());
            let asked = futures::stream::iter([request]);
            let mut answers = client.server_reflection_info(Request::new(asked)).await.unwrap().into_inner();
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
