//! A gateway with a fake auth service and a [fake embedder](crate::fake_embedder).

use std::{
    fmt::Debug,
    mem,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use clap::Parser;
use ed25519_dalek::{Signer as _, SigningKey};
use futures::{Stream, stream};
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use muse_gateway::{Args, Config, Resolver, SystemResolver};
use muse_proto::{
    Error, Reason,
    v1::{
        ApiKey, CreateKeyRequest, CreateKeyResponse, DeleteKeyRequest, DeleteKeyResponse, DescribeKeyRequest,
        DescribeKeyResponse, GetJwksRequest, GetJwksResponse, GetKeyRequest, GetKeyResponse, JsonWebKey,
        ListKeysRequest, ListKeysResponse, LoginRequest, LoginResponse, QuotaState, RefreshTokenRequest,
        RefreshTokenResponse, ReportKeyUseRequest, ReportKeyUseResponse, ReportUsageRequest,
        ReportUsageResponse, RevokeTokenRequest, RevokeTokenResponse, RevokeUserTokensRequest,
        RevokeUserTokensResponse, UpdateKeyRequest, UpdateKeyResponse, VerifiableKey,
        WatchRevocationsRequest, WatchRevocationsResponse,
        auth_service_client::AuthServiceClient,
        auth_service_server::{AuthService, AuthServiceServer},
        embedder_service_client::EmbedderServiceClient,
        key_service_server::{KeyService, KeyServiceServer},
        revocation_service_server::{RevocationService, RevocationServiceServer},
        usage_service_server::UsageServiceServer,
        user_service_server::UserServiceServer,
    },
};
use muse_server::{Addresses, Listeners, deadline, grpc};
use muse_telemetry::{metrics::Metrics, request_telemetry::RequestTelemetry, trace::Traces};
use muse_verifier::{Credential, Verifier};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::{Notify, oneshot, watch},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::fake_embedder::{Behavior, Embedder};

pub(crate) const KID: &str = "the key";

/// A token signed like those of the auth service. Equal arguments result in equal tokens.
pub(crate) fn token(kind: &str, id: &str, family: Option<&str>) -> String {
    token_of("a", kind, id, family)
}

/// The token of another user.
pub(crate) fn token_of(user: &str, kind: &str, id: &str, family: Option<&str>) -> String {
    static BEGUN: LazyLock<u64> =
        LazyLock::new(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    let mut claims = json!({"exp": *BEGUN + 600, "jti": id, "type": kind, "sub": user});
    if let Some(family) = family {
        claims["fam"] = family.into();
    }
    let header = json!({"alg": "EdDSA", "kid": KID});
    let encoded = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let message = format!("{}.{}", encoded(&header), encoded(&claims));
    let signature = key().sign(message.as_bytes()).to_bytes();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn jwk() -> JsonWebKey {
    JsonWebKey {
        kty: "OKP".to_owned(),
        crv: "Ed25519".to_owned(),
        kid: KID.to_owned(),
        x: URL_SAFE_NO_PAD.encode(key().verifying_key().as_bytes()),
        alg: "EdDSA".to_owned(),
        r#use: "sig".to_owned(),
    }
}

/// The metadata that a service received.
#[derive(Debug, Default)]
pub(crate) struct ReceivedMetadata {
    pub(crate) forwarded_for: Vec<String>,
    pub(crate) authorization: Vec<String>,
    /// The remaining time of the caller.
    pub(crate) deadline: Option<Duration>,
    /// The names of all headers.
    pub(crate) names: Vec<String>,
}

impl ReceivedMetadata {
    pub(crate) fn of<T>(call: &Request<T>) -> Self {
        let values = |name| {
            let values = call.metadata().get_all(name).iter();
            values.map(|value| value.to_str().unwrap().to_owned()).collect()
        };
        Self {
            forwarded_for: values("x-forwarded-for"),
            authorization: values("authorization"),
            deadline: deadline::of(call.metadata().as_ref()),
            names: call.metadata().clone().into_headers().keys().map(ToString::to_string).collect(),
        }
    }
}

/// The services behind the gateway.
#[derive(Clone)]
pub(crate) struct Backend {
    auth: SocketAddr,
    embedder: Embedder,
    /// The metadata of the calls, also of those that the embedder received.
    received: Arc<Mutex<Vec<ReceivedMetadata>>>,
    /// The debug output of the last message about a user.
    message: Arc<Mutex<String>>,
    /// Whether the auth service sends messages to verifiers.
    sending: Arc<watch::Sender<bool>>,
    logging_in: Arc<Notify>,
    logins: Arc<AtomicUsize>,
    /// The API keys that verifiers get.
    pub(crate) api_keys: Arc<Mutex<Vec<VerifiableKey>>>,
    /// The quotas that verifiers get.
    pub(crate) quotas: Arc<Mutex<Vec<QuotaState>>>,
    /// The runtime of the auth service. Its shutdown breaks all connections, like the end of a
    /// process.
    auth_runtime: Arc<Mutex<Option<Runtime>>>,
}

impl Backend {
    pub(crate) async fn start() -> Self {
        let received = Arc::default();
        let mut backend = Self {
            auth: SocketAddr::from(([127, 0, 0, 1], 0)),
            embedder: Embedder::start_with(Arc::clone(&received), "127.0.0.1:0", 1.0, None).await,
            received,
            message: Arc::default(),
            sending: Arc::new(watch::Sender::new(true)),
            logging_in: Arc::default(),
            logins: Arc::default(),
            api_keys: Arc::default(),
            quotas: Arc::default(),
            auth_runtime: Arc::default(),
        };
        backend.auth = backend.start_auth().await;
        backend.embedder.respond_with(Behavior::UnreadStreams);
        backend
    }

    pub(crate) async fn start_auth(&self) -> SocketAddr {
        let runtime = Runtime::new().unwrap();
        let (service, address) = (self.clone(), self.auth);
        let (bound, is_bound) = oneshot::channel();
        runtime.spawn(async move {
            let listener = TcpListener::bind(address).await.unwrap();
            bound.send(listener.local_addr().unwrap()).unwrap();
            let router = server()
                .add_service(AuthServiceServer::new(service.clone()))
                .add_service(KeyServiceServer::new(service.clone()))
                .add_service(UsageServiceServer::new(service.clone()))
                .add_service(UserServiceServer::new(service.clone()))
                .add_service(RevocationServiceServer::new(service));
            router.serve_with_incoming(TcpIncoming::from(listener)).await
        });
        *self.auth_runtime.lock().unwrap() = Some(runtime);
        is_bound.await.unwrap()
    }

    pub(crate) fn stop_auth(&self) {
        if let Some(runtime) = self.auth_runtime.lock().unwrap().take() {
            runtime.shutdown_background();
        }
    }

    pub(crate) fn stop_sending(&self) {
        self.sending.send_replace(false);
    }

    pub(crate) fn resume_sending(&self) {
        self.sending.send_replace(true);
    }

    /// Waits for a login that gets no response.
    pub(crate) async fn wait_for_login(&self) {
        self.logging_in.notified().await;
    }

    /// The addresses of the services.
    pub(crate) fn addresses(&self) -> [SocketAddr; 2] {
        [self.auth, self.embedder.address]
    }

    /// The number of received logins.
    pub(crate) fn logins(&self) -> usize {
        self.logins.load(Ordering::Relaxed)
    }

    /// The number of open streams.
    pub(crate) fn streams(&self) -> usize {
        self.embedder.streams()
    }

    /// Takes the metadata of the last call.
    pub(crate) fn take_received(&self) -> ReceivedMetadata {
        mem::take(&mut *self.received.lock().unwrap()).pop().unwrap_or_default()
    }

    /// Takes the debug output of the last message about a user; empty if there was none.
    pub(crate) fn take_message(&self) -> String {
        mem::take(&mut self.message.lock().unwrap())
    }

    /// Records the metadata and the message.
    pub(crate) fn record_message<T: Debug>(&self, call: Request<T>) -> T {
        let message = self.record(call);
        *self.message.lock().unwrap() = format!("{message:?}");
        message
    }

    fn record<T>(&self, call: Request<T>) -> T {
        self.received.lock().unwrap().push(ReceivedMetadata::of(&call));
        call.into_inner()
    }
}

fn unimplemented<T>() -> Result<T, Status> {
    Err(Status::unimplemented("not in this test"))
}

#[tonic::async_trait]
impl AuthService for Backend {
    async fn login(&self, call: Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        self.logins.fetch_add(1, Ordering::Relaxed);
        match self.record(call).username.as_str() {
            "impatient" => {
                let rejected = Error::new(Reason::TooManyAttempts, "too many attempts");
                Err(rejected.with_retry_after(Duration::from_millis(30_100)).into())
            }
            "hanging" => {
                self.logging_in.notify_one();
                std::future::pending().await
            }
            _ => Ok(Response::new(LoginResponse::default())),
        }
    }

    async fn refresh_token(
        &self,
        call: Request<RefreshTokenRequest>,
    ) -> Result<Response<RefreshTokenResponse>, Status> {
        let verifier = Verifier::with_keys(&[jwk()]);
        let user = verifier.authenticate(call.metadata().as_ref(), Credential::AnyToken)?;
        let claims = user.claims()?.clone();
        self.record(call);
        let refresh_token = claims.family.as_ref().map(|_| "a new one".to_owned()).unwrap_or_default();
        Ok(Response::new(RefreshTokenResponse { refresh_token, ..Default::default() }))
    }

    async fn revoke_token(
        &self,
        call: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        self.record(call);
        Ok(Response::new(RevokeTokenResponse {}))
    }

    async fn revoke_user_tokens(
        &self,
        call: Request<RevokeUserTokensRequest>,
    ) -> Result<Response<RevokeUserTokensResponse>, Status> {
        self.record_message(call);
        Ok(Response::new(RevokeUserTokensResponse {}))
    }

    async fn get_jwks(&self, _: Request<GetJwksRequest>) -> Result<Response<GetJwksResponse>, Status> {
        unimplemented()
    }
}

#[tonic::async_trait]
impl RevocationService for Backend {
    type WatchRevocationsStream =
        Pin<Box<dyn Stream<Item = Result<WatchRevocationsResponse, Status>> + Send>>;

    async fn watch_revocations(
        &self,
        _: Request<WatchRevocationsRequest>,
    ) -> Result<Response<Self::WatchRevocationsStream>, Status> {
        let state = (self.sending.subscribe(), self.clone());
        let messages = stream::unfold(state, async |(mut sending, backend)| {
            tokio::time::sleep(Duration::from_millis(50)).await;
            sending.wait_for(|sending| *sending).await.ok()?;
            let message = WatchRevocationsResponse {
                keys: vec![jwk()],
                api_keys: backend.api_keys.lock().unwrap().clone(),
                key_cursor: 1,
                quotas: backend.quotas.lock().unwrap().clone(),
                ..Default::default()
            };
            Some((Ok(message), (sending, backend)))
        });
        Ok(Response::new(Box::pin(messages)))
    }

    async fn report_key_use(
        &self,
        _: Request<ReportKeyUseRequest>,
    ) -> Result<Response<ReportKeyUseResponse>, Status> {
        Ok(Response::new(ReportKeyUseResponse {}))
    }

    async fn report_usage(
        &self,
        _: Request<ReportUsageRequest>,
    ) -> Result<Response<ReportUsageResponse>, Status> {
        unimplemented()
    }
}

/// Answers with what it was asked for.
#[tonic::async_trait]
impl KeyService for Backend {
    async fn create_key(
        &self,
        call: Request<CreateKeyRequest>,
    ) -> Result<Response<CreateKeyResponse>, Status> {
        let CreateKeyRequest { name, expires_in, bulk, username, quota } = self.record(call);
        if name == "one too many" {
            return Err(Error::new(Reason::TooManyKeys, "too many keys").into());
        }
        let key = ApiKey { name, expires_at: expires_in, bulk, owner: username, quota, ..described("a") };
        Ok(Response::new(CreateKeyResponse { key: Some(key), secret_key: "muse_a_b".to_owned() }))
    }

    async fn list_keys(&self, call: Request<ListKeysRequest>) -> Result<Response<ListKeysResponse>, Status> {
        let ListKeysRequest { page_size, page_token, username, all_users } = self.record(call);
        let name = format!("{page_size} {page_token} {username} {all_users}");
        let keys = vec![ApiKey { name, ..described("a") }];
        Ok(Response::new(ListKeysResponse { keys, next_page_token: "next".to_owned() }))
    }

    async fn get_key(&self, call: Request<GetKeyRequest>) -> Result<Response<GetKeyResponse>, Status> {
        let id = self.record(call).id;
        if id == "none" {
            return Err(Error::new(Reason::NoSuchKey, "there is no such API key").into());
        }
        Ok(Response::new(GetKeyResponse { key: Some(described(&id)) }))
    }

    async fn update_key(
        &self,
        call: Request<UpdateKeyRequest>,
    ) -> Result<Response<UpdateKeyResponse>, Status> {
        let change = self.record(call);
        let mut name =
            format!("{:?} {:?} {:?} {:?}", change.name, change.disabled, change.expires_in, change.bulk);
        if let Some(quota) = change.quota {
            name.push_str(&format!(" {}", quota.tokens));
        }
        Ok(Response::new(UpdateKeyResponse { key: Some(ApiKey { name, ..described(&change.id) }) }))
    }

    async fn delete_key(
        &self,
        call: Request<DeleteKeyRequest>,
    ) -> Result<Response<DeleteKeyResponse>, Status> {
        self.record(call);
        Ok(Response::new(DeleteKeyResponse {}))
    }

    async fn describe_key(
        &self,
        call: Request<DescribeKeyRequest>,
    ) -> Result<Response<DescribeKeyResponse>, Status> {
        self.record(call);
        Ok(Response::new(DescribeKeyResponse { key: Some(described("presented")) }))
    }
}

fn described(id: &str) -> ApiKey {
    ApiKey { id: id.to_owned(), owner: "a".to_owned(), created_at: 1, ..ApiKey::default() }
}

/// A server with the settings of the real services.
pub(crate) fn server() -> Server<grpc::Layers> {
    let metrics = Metrics::of("muse-test");
    let traces = Traces::unrecorded("muse-test");
    grpc::server(RequestTelemetry::new(&metrics, traces, tracing::Level::DEBUG))
}

/// A running gateway, which ends when this is dropped.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    admin_port: SocketAddr,
    _shutdown: DropGuard,
}

impl Gateway {
    pub(crate) async fn start(backend: &Backend, options: &[&str]) -> Self {
        Self::start_before(backend, &backend.embedder.url(), Box::new(SystemResolver::default()), options)
            .await
    }

    /// Starts a gateway with other embedders.
    pub(crate) async fn start_before(
        backend: &Backend,
        embedders: &str,
        resolver: Box<dyn Resolver>,
        options: &[&str],
    ) -> Self {
        let auth = format!("http://{}", backend.auth);
        let own = ["muse-gateway", "--auth", &auth, "--embedder", embedders];
        let args = Args::parse_from(own.iter().chain(options));
        let config = Config::try_from(args).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = Listeners::bind(Addresses::with_any_admin(any)).await.unwrap();
        let Addresses { public: address, admin: admin_port } = listeners.addresses();
        let shutdown = CancellationToken::new();
        tokio::spawn(muse_gateway::run_with_resolver(config, resolver, listeners, shutdown.clone()));
        Self { address, admin_port, _shutdown: shutdown.drop_guard() }
    }

    pub(crate) async fn ready(backend: &Backend, options: &[&str]) -> Self {
        let gateway = Self::start(backend, options).await;
        gateway.wait_until_ready().await;
        gateway
    }

    pub(crate) async fn wait_until_ready(&self) {
        let request = HealthCheckRequest { service: String::new() };
        let mut reports = HealthClient::new(self.channel()).watch(request).await.unwrap().into_inner();
        while reports.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
    }

    pub(crate) fn auth(&self) -> AuthServiceClient<Channel> {
        AuthServiceClient::new(self.channel())
    }

    pub(crate) fn embedder(&self) -> EmbedderServiceClient<Channel> {
        EmbedderServiceClient::new(self.channel())
    }

    pub(crate) fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect_lazy()
    }

    /// Sends a REST request with a token.
    pub(crate) async fn send_as(&self, token: &str, method: &str, target: &str) -> HttpResponse {
        self.send(method, target, &[("authorization", &format!("Bearer {token}"))]).await
    }

    /// Sends a REST request without a body.
    pub(crate) async fn send(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> HttpResponse {
        self.send_body(method, target, headers, "").await
    }

    /// A REST request with a body.
    pub(crate) async fn send_body(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> HttpResponse {
        send_to(self.address, method, target, headers, body).await
    }

    /// Sends a request to the admin port.
    pub(crate) async fn send_to_admin(&self, target: &str) -> HttpResponse {
        send_to(self.admin_port, "GET", target, &[], "").await
    }
}

async fn send_to(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> HttpResponse {
    let mut request = http::Request::builder().method(method).uri(format!("http://{address}{target}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response =
        client.request(request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    HttpResponse { status: head.status, headers: head.headers, body }
}

pub(crate) struct HttpResponse {
    pub(crate) status: StatusCode,
    headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl HttpResponse {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}
