//! What a server says of itself in `grpc.health.v1`. The empty name stands for the whole server.

use tonic_health::{
    ServingStatus,
    pb::health_server::{Health, HealthServer},
    server::HealthReporter,
};

/// A health service that says that none of `services` serves, where tonic's own starts with "serving".
pub async fn not_serving(services: &[&str]) -> (HealthReporter, HealthServer<impl Health>) {
    let (health, service) = tonic_health::server::health_reporter();
    report(&health, services, false).await;
    (health, service)
}

/// Says whether `services` serve.
pub async fn report(health: &HealthReporter, services: &[&str], serving: bool) {
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    for service in services {
        health.set_service_status(*service, status).await;
    }
}
