//! Test helpers, and a whole stack in the test process: the three services on free loopback ports,
//! with the real model and a temporary database.

pub mod certificates;
pub mod http_client;
pub mod isolation;
pub mod procfs;
pub mod program;
pub mod pytest;
pub mod running;

use std::{
    fmt::Debug,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Parser;
use muse_model::{model_dir::ModelDir, precision::Precision};
use muse_proto::v1::{
    LoginRequest, LoginResponse, auth_service_client::AuthServiceClient,
    embedder_service_client::EmbedderServiceClient, user_service_client::UserServiceClient,
};
use muse_server::{Addresses, Listeners};
use tempfile::TempDir;
use tokio::{process::Command, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// Timeout of all waits in tests.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// The checkout.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// The model that `make model` converted.
#[must_use]
pub fn model_dir() -> PathBuf {
    let directory = root().join("var/model/muse-3");
    assert!(directory.join("manifest.json").exists(), "there is no model: run `make model`");
    directory
}

/// Makes a copy of the model in `folder` whose manifest describes other weights. Returns its fingerprint.
///
/// # Panics
///
/// If there is no model, or the folder cannot be written.
#[must_use]
pub fn model_with_other_weights(folder: &Path) -> String {
    let original = model_dir();
    let mut manifest = ModelDir::open(&original).expect("the model is whole").manifest().clone();
    for file in manifest.files.keys() {
        std::os::unix::fs::symlink(original.join(file), folder.join(file)).expect("the folder is empty");
    }
    manifest.source.weights_sha256 = "0".repeat(64);
    let bytes = manifest.to_bytes().expect("a manifest is JSON");
    std::fs::write(folder.join("manifest.json"), bytes).expect("the folder can be written");
    manifest.fingerprint(Precision::F32)
}

/// A program of the Python environment that `make test` creates from tests/sdks/requirements.txt,
/// with the checkout as working directory.
#[must_use]
pub fn sdk_program(name: &str) -> Command {
    venv_program("SDK_VENV", name)
}

/// A program of the Python environment that the variable names, with the checkout as working
/// directory.
#[must_use]
pub fn venv_program(variable: &str, name: &str) -> Command {
    let venv = std::env::var_os(variable);
    let venv = venv.unwrap_or_else(|| panic!("{variable} names a Python environment: run `make test`"));
    let mut command = Command::new(Path::new(&venv).join("bin").join(name));
    command.current_dir(root()).kill_on_drop(true);
    command
}

/// Runs a program with the address of the gateway of a new stack in GATEWAY, and an API key in
/// MUSE_API_KEY.
///
/// # Panics
///
/// If it fails.
pub async fn run_with_key(command: &mut Command) {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let http = http_client::HttpClient::new(stack.gateway.address);
    let created = http.json("POST", "/api/keys", &token, &serde_json::json!({ "name": "program" })).await;
    assert_eq!(created.status, 201);
    let status = command
        .env("GATEWAY", format!("http://{}", stack.gateway.address))
        .env("MUSE_API_KEY", created.text_of("key"))
        .status()
        .await
        .expect("the program starts");
    assert!(status.success(), "{status}");
    stack.stop().await;
}

/// A running service.
#[derive(Debug)]
pub struct Service {
    /// Address of its public port.
    pub address: SocketAddr,
    /// Address of its admin port.
    pub admin_port: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Service {
    /// Starts a service on a free port.
    pub async fn start<F, E>(run: impl FnOnce(Listeners, CancellationToken) -> F) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Debug + Send,
    {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), run).await
    }

    /// Starts a service on an address.
    pub async fn start_at<F, E>(
        address: SocketAddr,
        run: impl FnOnce(Listeners, CancellationToken) -> F,
    ) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Debug + Send,
    {
        let addresses = Addresses::with_any_admin(address);
        let listeners = Listeners::bind(addresses).await.expect("the address is free");
        let Addresses { public, admin } = listeners.addresses();
        let shutdown = CancellationToken::new();
        let served = run(listeners, shutdown.clone());
        let task = tokio::spawn(async move { served.await.expect("the service ends without an error") });
        Self { address: public, admin_port: admin, shutdown, task }
    }

    /// Shuts the service down and waits until it has ended without an error.
    pub async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(TIMEOUT, self.task).await.expect("it ends").expect("it does not panic");
    }
}

/// Auth, embedder and gateway.
#[derive(Debug)]
pub struct Stack {
    /// The folder of the database.
    pub data: TempDir,
    /// The auth service.
    pub auth: Service,
    /// The embedder.
    pub embedder: Service,
    /// The gateway.
    pub gateway: Service,
}

impl Stack {
    /// Starts a stack with the options of `make run` and the user admin / admin.
    pub async fn start() -> Self {
        Self::start_with(&model_dir(), |_| ()).await
    }

    /// Starts a stack with another model and another configuration of the auth service.
    pub async fn start_with(model: &Path, configure_auth: impl FnOnce(&mut muse_auth::Config)) -> Self {
        let data = tempfile::tempdir().expect("there is a place for temporary files");
        let mut config = auth_config(data.path());
        configure_auth(&mut config);
        let auth = start_auth(config).await;
        let embedder = start_embedder(model, auth.address, &[]).await;
        let gateway = start_gateway(auth.address, embedder.address, &[]).await;
        let stack = Self { data, auth, embedder, gateway };
        stack.wait_until_ready().await;
        stack
    }

    /// Starts a stack with access tokens that are valid for 2 s, rotating refresh tokens, and a short queue.
    pub async fn start_strict() -> Self {
        let data = tempfile::tempdir().expect("there is a place for temporary files");
        let mut config = auth_config(data.path());
        config.access_token_lifetime = Duration::from_secs(2);
        config.refresh_rotation = Some(muse_auth::RefreshRotation { grace: Duration::from_secs(1) });
        let auth = start_auth(config).await;
        let embedder = start_embedder(&model_dir(), auth.address, &["--queue-tokens", "4000"]).await;
        let gateway = start_gateway(auth.address, embedder.address, &[]).await;
        let stack = Self { data, auth, embedder, gateway };
        stack.wait_until_ready().await;
        stack
    }

    /// Waits until `grpc.health.v1` of the gateway reports SERVING.
    pub async fn wait_until_ready(&self) {
        wait_until_serving(self.channel()).await;
    }

    /// A connection to the gateway.
    #[must_use]
    pub fn channel(&self) -> Channel {
        channel(self.gateway.address)
    }

    /// A client of the gateway.
    #[must_use]
    pub fn auth_client(&self) -> AuthServiceClient<Channel> {
        AuthServiceClient::new(self.channel())
    }

    /// A client of the gateway.
    #[must_use]
    pub fn embedder_client(&self) -> EmbedderServiceClient<Channel> {
        EmbedderServiceClient::new(self.channel())
            .max_decoding_message_size(64 << 20)
            .max_encoding_message_size(64 << 20)
    }

    /// A client of the gateway.
    #[must_use]
    pub fn user_client(&self) -> UserServiceClient<Channel> {
        UserServiceClient::new(self.channel())
    }

    /// Logs in as admin.
    pub async fn login(&self) -> LoginResponse {
        login(self.channel()).await
    }

    /// Shuts all services down, the gateway first.
    pub async fn stop(self) {
        self.gateway.stop().await;
        self.embedder.stop().await;
        self.auth.stop().await;
    }
}

/// The configuration of the auth service in `make run`, with the database in `folder`.
#[must_use]
pub fn auth_config(folder: &Path) -> muse_auth::Config {
    muse_auth::Config::new(folder.join("muse.db"))
}

/// Starts an auth service.
pub async fn start_auth(config: muse_auth::Config) -> Service {
    Service::start(|listeners, shutdown| muse_auth::run(config, listeners, shutdown)).await
}

/// The configuration of an embedder with the model in `directory` and the auth service at `auth`.
#[must_use]
pub fn embedder_config(directory: &Path, auth: SocketAddr, options: &[&str]) -> muse_embedder::Config {
    let directory = directory.to_str().expect("the path is UTF-8");
    let auth = format!("http://{auth}");
    let own = ["muse-embedder", "--model-dir", directory, "--auth", &auth];
    let args = muse_embedder::Args::parse_from(own.iter().chain(options));
    args.try_into().expect("the options are valid")
}

/// Starts an embedder with that configuration.
pub async fn start_embedder(directory: &Path, auth: SocketAddr, options: &[&str]) -> Service {
    let config = embedder_config(directory, auth, options);
    Service::start(|listeners, shutdown| muse_embedder::run(config, listeners, shutdown)).await
}

/// Starts a gateway to the services at these addresses.
pub async fn start_gateway(auth: SocketAddr, embedder: SocketAddr, options: &[&str]) -> Service {
    let (auth, embedder) = (format!("http://{auth}"), format!("http://{embedder}"));
    let own = ["muse-gateway", "--auth", &auth, "--embedder", &embedder];
    let args = muse_gateway::Args::parse_from(own.iter().chain(options));
    let config = muse_gateway::Config::try_from(args).expect("the options are valid");
    Service::start(|listeners, shutdown| muse_gateway::run(config, listeners, shutdown)).await
}

/// Logs in as admin, at the auth service or a gateway.
pub async fn login(channel: Channel) -> LoginResponse {
    let request = LoginRequest { username: "admin".to_owned(), password: "admin".to_owned() };
    AuthServiceClient::new(channel).login(request).await.expect("admin may log in").into_inner()
}

/// A channel that connects when it is first used.
#[must_use]
pub fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).expect("the address makes a URL").connect_lazy()
}

/// Waits until `grpc.health.v1` reports SERVING for the whole server.
pub async fn wait_until_serving(channel: Channel) {
    let serves = async {
        let request = HealthCheckRequest { service: String::new() };
        let mut reports =
            HealthClient::new(channel).watch(request).await.expect("health is open to all").into_inner();
        while let Some(report) = reports.message().await.expect("the stream goes on") {
            if report.status() == ServingStatus::Serving {
                return;
            }
        }
        panic!("the health stream ended");
    };
    tokio::time::timeout(TIMEOUT, serves).await.expect("it becomes ready");
}

/// Polls until there is a result.
pub async fn until<T>(mut poll: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = poll().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, found).await.expect("the condition is true in time")
}

/// A request with a token.
#[must_use]
pub fn bearing<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().expect("a token is ASCII");
    request.metadata_mut().insert("authorization", value);
    request
}

/// The golden sentences in order.
#[must_use]
pub fn golden_sentences() -> Vec<muse_models::golden::Sentence> {
    muse_models::golden::sentences().expect("the golden data is whole")
}

/// The largest absolute difference of the components of two vectors.
#[must_use]
pub fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}
