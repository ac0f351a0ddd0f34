//! What a server says of itself in `grpc.health.v1`: whether it serves, as a whole (the empty name) and by the names of
//! its services.
//!
//! tonic's own service cannot tell a watcher of the shutdown and then let go, and forgets the names with that.

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
    /// It will not serve again.
    Stopping,
}

/// The health service of a server.
pub type Service = HealthServer<HealthService>;

/// Tells the health service how its server is.
#[derive(Debug, Clone)]
pub struct Health(watch::Sender<State>);

impl Health {
    /// Says whether the services serve. After [`Health::stop`] they do not.
    pub fn report(&self, serving: bool) {
        let state = if serving { State::Serving } else { State::NotServing };
        self.0.send_if_modified(|old| {
            let changes = *old != State::Stopping && *old != state;
            if changes {
                *old = state;
            }
            changes
        });
    }

    /// Whether the services serve.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        *self.0.borrow() == State::Serving
    }

    /// Says that nothing serves any more, and ends the streams of those who watch, which would hold a shutdown up.
    pub fn stop(&self) {
        self.0.send_replace(State::Stopping);
    }
}

/// The health service of a server of `services`, which do not serve yet.
#[must_use]
pub fn not_serving(services: &'static [&'static str]) -> (Health, Service) {
    let (sender, state) = watch::channel(State::NotServing);
    (Health(sender), HealthServer::new(HealthService { services, state }))
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
        Ok(Response::new(answer(true, *self.state.borrow())))
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
            let (mut state, told) = watching?;
            loop {
                state.changed().await.ok()?;
                let latest = *state.borrow_and_update();
                let report = answer(known, latest);
                let rest = (latest != State::Stopping).then(|| (state.clone(), Some(report.status)));
                // An unknown service stays so, but its watcher has to go, too.
                if told != Some(report.status) {
                    return Some((Ok(report), rest));
                }
                rest?;
            }
        });
        Ok(Response::new(reports.boxed()))
    }
}

fn answer(known: bool, state: State) -> HealthCheckResponse {
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

    fn asked(service: &str) -> Request<HealthCheckRequest> {
        Request::new(HealthCheckRequest { service: service.to_owned() })
    }

    fn service() -> (Health, HealthService) {
        let (sender, state) = watch::channel(State::NotServing);
        (Health(sender), HealthService { services: &["", "a.B"], state })
    }

    #[tokio::test]
    async fn each_name_is_answered_and_no_other() {
        let (health, service) = service();
        let check = async |name| service.check(asked(name)).await.map(|answer| answer.into_inner().status());
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
    async fn watchers_hear_each_change_and_of_the_end_before_it() {
        let (health, service) = service();
        let mut reports = service.watch(asked("a.B")).await.unwrap().into_inner();
        let mut unknown = service.watch(asked("a.C")).await.unwrap().into_inner();
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
        // Who comes now is told, and does not hold the shutdown up.
        let mut late = service.watch(asked("")).await.unwrap().into_inner();
        assert_eq!(next(&mut late).await, Some(ServingStatus::NotServing));
        assert_eq!(next(&mut late).await, None);
    }
}
