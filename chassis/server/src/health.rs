//! The health service of a server (`grpc.health.v1`): whether it serves, as a whole (the empty
//! name) and for each of its services.
//!
//! Own code, because tonic's health service cannot report the shutdown to watchers and then end
//! their streams, and it removes the names of the services when it clears a status.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{self, HealthServer},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    NotServing,
    Serving,
    /// Final: the server is shutting down.
    Stopping,
}

/// The health service of a server.
pub type Service = HealthServer<HealthService>;

/// Sets the state that the health service reports.
#[derive(Debug, Clone)]
pub struct Health {
    state: watch::Sender<State>,
    details: Arc<OnceLock<Details>>,
}

/// Describes the state for operators.
struct Details(Box<dyn Fn() -> Vec<String> + Send + Sync>);

impl fmt::Debug for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries((self.0)()).finish()
    }
}

impl Health {
    /// Reports whether the services serve. Has no effect after [`Health::stop`].
    pub fn report(&self, serving: bool) {
        let state = if serving { State::Serving } else { State::NotServing };
        self.state.send_if_modified(|old| {
            let is_change = *old != State::Stopping && *old != state;
            if is_change {
                *old = state;
            }
            is_change
        });
    }

    /// Whether the services serve.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        *self.state.borrow() == State::Serving
    }

    /// Adds lines to the readiness on the admin port, which are computed at each request. Only the first call has an effect.
    pub fn describe_with(&self, details: impl Fn() -> Vec<String> + Send + Sync + 'static) {
        // The first description stays.
        let _ = self.details.set(Details(Box::new(details)));
    }

    /// The lines of [`Health::describe_with`].
    #[must_use]
    pub fn details(&self) -> Vec<String> {
        self.details.get().map(|details| (details.0)()).unwrap_or_default()
    }

    /// Reports that the services no longer serve, and ends the streams of watchers, which would
    /// delay the shutdown.
    pub fn stop(&self) {
        self.state.send_replace(State::Stopping);
    }
}

/// The health service of a server of `services`, which do not serve yet.
#[must_use]
pub fn not_serving(services: &'static [&'static str]) -> (Health, Service) {
    let (sender, state) = watch::channel(State::NotServing);
    let health = Health { state: sender, details: Arc::default() };
    (health, HealthServer::new(HealthService { services, state }))
}

/// `grpc.health.v1.Health`.
#[derive(Debug)]
pub struct HealthService {
    services: &'static [&'static str],
    state: watch::Receiver<State>,
}

impl HealthService {
    fn serves(&self, request: &Request<HealthCheckRequest>) -> bool {
        self.services.contains(&request.get_ref().service.as_str())
    }
}

#[tonic::async_trait]
impl health_server::Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !self.serves(&request) {
            return Err(Status::not_found("there is no service of this name here"));
        }
        Ok(Response::new(response(true, *self.state.borrow())))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = self.serves(&request);
        let mut state = self.state.clone();
        state.mark_changed();
        let reports = stream::unfold(Some((state, None)), move |watching| async move {
            let (mut state, reported) = watching?;
            loop {
                state.changed().await.ok()?;
                let latest = *state.borrow_and_update();
                let report = response(known, latest);
                let rest = (latest != State::Stopping).then(|| (state.clone(), Some(report.status)));
                // The status of an unknown service does not change, but its stream ends, too.
                if reported != Some(report.status) {
                    return Some((Ok(report), rest));
                }
                rest?;
            }
        });
        Ok(Response::new(reports.boxed()))
    }
}

fn response(known: bool, state: State) -> HealthCheckResponse {
    let status = match state {
        _ if !known => ServingStatus::ServiceUnknown,
        State::Serving => ServingStatus::Serving,
        State::NotServing | State::Stopping => ServingStatus::NotServing,
    };
    HealthCheckResponse { status: status.into() }
}

#[cfg(test)]
mod tests {
    use health_server::Health as _;

    use super::*;

    fn request(service: &str) -> Request<HealthCheckRequest> {
        Request::new(HealthCheckRequest { service: service.to_owned() })
    }

    fn service() -> (Health, HealthService) {
        let (sender, state) = watch::channel(State::NotServing);
        let health = Health { state: sender, details: Arc::default() };
        (health, HealthService { services: &["", "a.B"], state })
    }

    #[tokio::test]
    async fn known_services_are_reported_and_others_not_found() {
        let (health, service) = service();
        let check =
            async |name| service.check(request(name)).await.map(|response| response.into_inner().status());
        for name in ["", "a.B"] {
            assert_eq!(check(name).await.unwrap(), ServingStatus::NotServing);
        }
        health.report(true);
        for name in ["", "a.B"] {
            assert_eq!(check(name).await.unwrap(), ServingStatus::Serving);
        }
        assert_eq!(check("a.C").await.unwrap_err().code(), tonic::Code::NotFound);
        health.stop();
        health.report(true);
        for name in ["", "a.B"] {
            assert_eq!(check(name).await.unwrap(), ServingStatus::NotServing);
        }
    }

    #[tokio::test]
    async fn watchers_receive_each_change_and_the_shutdown() {
        let (health, service) = service();
        let mut reports = service.watch(request("a.B")).await.unwrap().into_inner();
        let mut unknown = service.watch(request("a.C")).await.unwrap().into_inner();
        let next = async |reports: &mut BoxStream<'static, Result<HealthCheckResponse, Status>>| {
            reports.next().await.map(|report| report.unwrap().status())
        };
        assert_eq!(next(&mut reports).await, Some(ServingStatus::NotServing));
        assert_eq!(next(&mut unknown).await, Some(ServingStatus::ServiceUnknown));
        health.report(true);
        assert_eq!(next(&mut reports).await, Some(ServingStatus::Serving));
        health.report(true);
        health.stop();
        assert_eq!(next(&mut reports).await, Some(ServingStatus::NotServing));
        assert_eq!(next(&mut reports).await, None);
        assert_eq!(next(&mut unknown).await, None);
        // A late watcher receives the status, and its stream ends.
        let mut late = service.watch(request("")).await.unwrap().into_inner();
        assert_eq!(next(&mut late).await, Some(ServingStatus::NotServing));
        assert_eq!(next(&mut late).await, None);
    }
}
