//! A running service and its clients.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use muse_auth::{AdminOps, AuthError, Config};
use muse_proto::{
    Error, Reason,
    v1::{
        LoginRequest, LoginResponse, RefreshTokenRequest, RevokeTokenRequest,
        auth_service_client::AuthServiceClient, revocation_service_client::RevocationServiceClient,
        user_service_client::UserServiceClient,
    },
};
use muse_server::{Addresses, Listeners};
use muse_verifier::Verifier;
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Request, transport::Channel};

use crate::backend;

const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
pub(crate) const PASSWORD: &str = "correct horse";

/// A folder, and a configuration with its own database.
pub(crate) fn folder() -> (TempDir, Config) {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::new("");
    config.database = backend::new_database(&folder);
    config.admin_password = Some(SecretString::from(PASSWORD));
    (folder, config)
}

/// Listeners on free ports.
pub(crate) async fn listeners() -> Listeners {
    listeners_at(ANY).await
}

async fn listeners_at(address: SocketAddr) -> Listeners {
    Listeners::bind(Addresses::with_any_admin(address)).await.unwrap()
}

pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    pub(crate) channel: Channel,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), AuthError>>,
}

impl Service {
    pub(crate) async fn start(config: &Config) -> Self {
        Self::start_at(config, ANY).await
    }

    pub(crate) async fn start_at(config: &Config, address: SocketAddr) -> Self {
        let listeners = listeners_at(address).await;
        let address = listeners.addresses().public;
        let shutdown = CancellationToken::new();
        let running = muse_auth::run(config.clone(), listeners, shutdown.clone());
        let task = tokio::spawn(async move {
            let ended = running.await;
            if let Err(failure) = &ended {
                // Otherwise a test would only report a refused connection.
                eprintln!("the service at {address} has failed: {failure:?}");
            }
            ended
        });
        let channel = channel(address);
        Self { address, channel, shutdown, task }
    }

    /// Stops the service, and asserts that it does not need the grace period.
    pub(crate) async fn stop(self) {
        let begun = Instant::now();
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
    }

    pub(crate) fn auth(&self) -> AuthServiceClient<Channel> {
        AuthServiceClient::new(self.channel.clone())
    }

    pub(crate) fn users(&self) -> UserServiceClient<Channel> {
        UserServiceClient::new(self.channel.clone())
    }

    pub(crate) fn revocations(&self) -> RevocationServiceClient<Channel> {
        RevocationServiceClient::new(self.channel.clone())
    }

    pub(crate) async fn login(&self, username: &str, password: &str) -> Result<LoginResponse, Error> {
        let request = LoginRequest { username: username.to_owned(), password: password.to_owned() };
        self.auth()
            .login(request)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| Error::from(&status))
    }

    /// An access and a refresh token of `admin`.
    pub(crate) async fn tokens(&self) -> (String, String) {
        let tokens = self.login("admin", PASSWORD).await.unwrap();
        (tokens.access_token, tokens.refresh_token)
    }

    pub(crate) async fn refresh(&self, token: &str) -> Result<String, Error> {
        let answer = self.auth().refresh_token(with_token(RefreshTokenRequest {}, token)).await;
        answer.map(|answer| answer.into_inner().access_token).map_err(|status| Error::from(&status))
    }

    pub(crate) async fn revoke(&self, token: &str) -> Result<(), Error> {
        let answer = self.auth().revoke_token(with_token(RevokeTokenRequest {}, token)).await;
        answer.map(drop).map_err(|status| Error::from(&status))
    }
}

pub(crate) fn channel(address: SocketAddr) -> Channel {
    muse_server::grpc::endpoint(&format!("http://{address}")).unwrap().connect_lazy()
}

pub(crate) fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

/// A verifier that does not become stale during a test.
pub(crate) fn verifier() -> Verifier {
    Verifier::new(Duration::from_secs(300))
}

/// The operations of the command line.
pub(crate) async fn admin_ops(config: &Config) -> AdminOps {
    AdminOps::open(config.clone()).await.unwrap()
}

pub(crate) fn error(reason: Reason, message: &str) -> Error {
    Error::new(reason, message)
}

pub(crate) fn revoked() -> Error {
    error(Reason::TokenRevoked, "Token has been revoked")
}

/// Waits until a condition is true.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(Instant::now() < deadline, "timeout: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
