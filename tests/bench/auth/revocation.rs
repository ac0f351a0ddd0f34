//! How soon two gateways and an embedder refuse a token that was revoked.

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
use muse_tests::{PATIENCE, Stack, bearing, channel, start_gateway, wait_until_serving};
use tonic::{Status, transport::Channel};

use crate::{row, title};

const TOKENS: usize = 1000;
/// Each needs a login.
const USERS_TOKENS: usize = 100;
const MEDIAN_BELOW: Duration = Duration::from_millis(20);
const WORST_BELOW: Duration = Duration::from_millis(250);

/// Who checks tokens.
enum Place {
    /// Asked for the keys, a call that nobody behind the gateway checks once more.
    Gateway(AuthServiceClient<Channel>),
    Embedder(EmbedderServiceClient<Channel>),
}

impl Place {
    async fn call(&mut self, token: &str) -> Result<(), Status> {
        match self {
            Self::Gateway(client) => client.get_jwks(bearing(token, GetJwksRequest {})).await.map(drop),
            Self::Embedder(client) => client.get_model(bearing(token, GetModelRequest {})).await.map(drop),
        }
    }

    /// When the first call that was refused began, and when it was answered.
    async fn refusal(&mut self, token: &str) -> (Instant, Instant) {
        loop {
            let begun = Instant::now();
            if let Err(status) = self.call(token).await {
                assert_eq!(Error::from(&status).reason(), Reason::TokenRevoked, "{status}");
                return (begun, Instant::now());
            }
        }
    }
}

/// Times from the answer to a revocation until the last place refused, by the beginning and the end of that call.
#[derive(Default)]
struct Delays {
    begun: Vec<Duration>,
    answered: Vec<Duration>,
}

impl Delays {
    async fn add(&mut self, places: &mut [Place], token: &str, revoke: impl Future<Output = ()>) {
        for place in places.iter_mut() {
            place.call(token).await.expect("the token holds");
        }
        revoke.await;
        let revoked = Instant::now();
        let refusals = futures::future::join_all(places.iter_mut().map(|place| place.refusal(token)));
        let refusals = tokio::time::timeout(PATIENCE, refusals).await.expect("it is refused everywhere");
        let last = |times: &mut dyn Iterator<Item = Instant>| {
            times.max().map_or(Duration::ZERO, |time| time - revoked)
        };
        self.begun.push(last(&mut refusals.iter().map(|refusal| refusal.0)));
        self.answered.push(last(&mut refusals.iter().map(|refusal| refusal.1)));
    }

    fn print(self, name: &str) {
        row(&format!("{name}: begins the refused call"), self.begun);
        let (median, worst) = row(&format!("{name}: has the refusal"), self.answered);
        for (what, figure, limit) in [("median", median, MEDIAN_BELOW), ("worst", worst, WORST_BELOW)] {
            let verdict = if figure < limit { "kept" } else { "MISSED" };
            println!("    {what} below {limit:?}: {verdict}");
        }
    }
}

pub(crate) async fn measure(model: &Path) {
    let stack = Stack::start_with(model, |_| ()).await;
    let second = start_gateway(stack.auth.address, stack.embedder.address, &[]).await;
    wait_until_serving(channel(second.address)).await;
    let gateway = |address| Place::Gateway(AuthServiceClient::new(channel(address)));
    let mut places = [
        gateway(stack.gateway.address),
        gateway(second.address),
        Place::Embedder(EmbedderServiceClient::new(channel(stack.embedder.address))),
    ];
    title("From a revocation's answer to the last refusal");

    let mut first = stack.auth_client();
    let refresh = stack.login().await.refresh_token;
    let mut delays = Delays::default();
    for _ in 0..TOKENS {
        let refreshed = first.refresh_token(bearing(&refresh, RefreshTokenRequest {})).await;
        let token = refreshed.expect("it is refreshed").into_inner().access_token;
        let call = bearing(&token, RevokeTokenRequest {});
        let revoke = async { first.revoke_token(call).await.map(drop).expect("it is revoked") };
        delays.add(&mut places, &token, revoke).await;
    }
    delays.print("RevokeToken");

    let mut delays = Delays::default();
    for _ in 0..USERS_TOKENS {
        let token = stack.login().await.access_token;
        let call = bearing(&token, RevokeUserTokensRequest::default());
        let revoke = async { first.revoke_user_tokens(call).await.map(drop).expect("they are revoked") };
        delays.add(&mut places, &token, revoke).await;
    }
    delays.print("RevokeUserTokens");
    second.stop().await;
    stack.stop().await;
}
