//! `grpc.health.v1` of each service.

use muse_tests::{Stack, TIMEOUT, channel};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

fn named(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_of_each_service_is_reported_until_its_shutdown() {
    let stack = Stack::start().await;
    let auth = ["muse.v1.AuthService", "muse.v1.KeyService", "muse.v1.UsageService", "muse.v1.UserService"];
    let all = [auth[0], auth[1], auth[2], auth[3], "muse.v1.EmbedderService"];
    let servers =
        [(stack.gateway.address, &all[..]), (stack.embedder.address, &all[4..]), (stack.auth.address, &auth)];
    let mut watching = Vec::new();
    for (address, services) in servers {
        let mut client = HealthClient::new(channel(address));
        for name in [&[""], services].concat() {
            let answer = client.check(named(name)).await.unwrap().into_inner();
            assert_eq!(answer.status(), ServingStatus::Serving, "{name} at {address}");
            let mut reports = client.watch(named(name)).await.unwrap().into_inner();
            assert_eq!(reports.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
            watching.push(reports);
        }
        let unknown = client.check(named("muse.v1.NoService")).await.unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound);
        let mut reports = client.watch(named("muse.v1.NoService")).await.unwrap().into_inner();
        assert_eq!(reports.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
        drop(reports);
    }
    let stopped = tokio::spawn(stack.stop());
    for mut reports in watching {
        let last = async {
            assert_eq!(reports.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
            assert_eq!(reports.message().await.unwrap(), None);
        };
        tokio::time::timeout(TIMEOUT, last).await.unwrap();
    }
    stopped.await.unwrap();
}
