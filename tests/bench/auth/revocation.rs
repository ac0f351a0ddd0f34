//! The delay from the revocation of a token until two gateways and an embedder reject it.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use muse_proto::{
    Error, Reason,
    v1::{
        GetJwksRequest, GetModelRequest, RefreshTokenRequest, RevokeTokenRequest, RevokeUserTokensRequest,
        auth_service_client::AuthServiceClient, embedder_service_client::EmbedderServiceClient,
    },
};
use muse_tests::{Stack, TIMEOUT, bearing, channel, start_gateway, wait_until_serving};
use tonic::{Status, transport::Channel};

use crate::{row, title};

const TOKENS: usize = 1000;
/// Each token requires a login.
const USERS_TOKENS: usize = 100;
const MEDIAN_BELOW: Duration = Duration::from_millis(20);
const MAX_BELOW: Duration = Duration::from_millis(250);

/// A service that verifies tokens.
enum VerifyingService {
    /// The method GetJwks, whose token only the gateway verifies.
    Gateway(AuthServiceClient<Channel>),
    Embedder(EmbedderServiceClient<Channel>),
}

impl VerifyingService {
    async fn call(&mut self, token: &str) -> Result<(), Status> {
        match self {
            Self::Gateway(client) => client.get_jwks(bearing(token, GetJwksRequest {})).await.map(drop),
            Self::Embedder(client) => client.get_model(bearing(token, GetModelRequest {})).await.map(drop),
        }
    }

    /// Calls until a call is rejected. Returns the start and the end of the rejected call.
    async fn wait_for_rejection(&mut self, token: &str) -> (Instant, Instant) {
        loop {
            let start = Instant::now();
            if let Err(status) = self.call(token).await {
                assert_eq!(Error::from(&status).reason(), Reason::TokenRevoked, "{status}");
                return (start, Instant::now());
            }
        }
    }
}

/// Delays from the response to a revocation until the last service rejects the token, measured to
/// the start and to the end of the rejected call.
#[derive(Default)]
struct Delays {
    to_start: Vec<Duration>,
    to_end: Vec<Duration>,
}

impl Delays {
    async fn add(
        &mut self,
        services: &mut [VerifyingService],
        token: &str,
        revoke: impl Future<Output = ()>,
    ) {
        for service in services.iter_mut() {
            service.call(token).await.expect("the token is valid");
        }
        revoke.await;
        let revoked = Instant::now();
        let rejections =
            futures::future::join_all(services.iter_mut().map(|service| service.wait_for_rejection(token)));
        let rejections = tokio::time::timeout(TIMEOUT, rejections).await.expect("all services reject it");
        let last = |times: &mut dyn Iterator<Item = Instant>| {
            times.max().map_or(Duration::ZERO, |time| time - revoked)
        };
        self.to_start.push(last(&mut rejections.iter().map(|rejection| rejection.0)));
        self.to_end.push(last(&mut rejections.iter().map(|rejection| rejection.1)));
    }

    fn print(self, name: &str) {
        row(&format!("{name}: start of the rejected call"), self.to_start);
        let (median, max) = row(&format!("{name}: end of the rejected call"), self.to_end);
        for (what, figure, limit) in [("median", median, MEDIAN_BELOW), ("max", max, MAX_BELOW)] {
            let verdict = if figure < limit { "met" } else { "MISSED" };
            println!("    {what} below {limit:?}: {verdict}");
        }
    }
}

pub(crate) async fn measure(model: &Path) {
    let stack = Stack::start_with(model, |_| ()).await;
    let second = start_gateway(stack.auth.address, stack.embedder.address, &[]).await;
    wait_until_serving(channel(second.address)).await;
    let gateway = |address| VerifyingService::Gateway(AuthServiceClient::new(channel(address)));
    let mut services = [
        gateway(stack.gateway.address),
        gateway(second.address),
        VerifyingService::Embedder(EmbedderServiceClient::new(channel(stack.embedder.address))),
    ];
    title("From the response of a revocation to the last rejection");

    let mut first = stack.auth_client();
    let refresh = stack.login().await.refresh_token;
    let mut delays = Delays::default();
    for _ in 0..TOKENS {
        let refreshed = first.refresh_token(bearing(&refresh, RefreshTokenRequest {})).await;
        let token = refreshed.expect("it is refreshed").into_inner().access_token;
        let call = bearing(&token, RevokeTokenRequest {});
        let revoke = async { first.revoke_token(call).await.map(drop).expect("it is revoked") };
        delays.add(&mut services, &token, revoke).await;
    }
    delays.print("RevokeToken");

    let mut delays = Delays::default();
    for _ in 0..USERS_TOKENS {
        let token = stack.login().await.access_token;
        let call = bearing(&token, RevokeUserTokensRequest::default());
        let revoke = async { first.revoke_user_tokens(call).await.map(drop).expect("they are revoked") };
        delays.add(&mut services, &token, revoke).await;
    }
    delays.print("RevokeUserTokens");
    second.stop().await;
    stack.stop().await;
}
