//! Keeps a verifier up to date from a running auth service.

use std::time::Duration;

use muse_proto::v1::{
    GetJwksRequest, WatchRevocationsRequest, WatchRevocationsResponse,
    auth_service_client::AuthServiceClient, revocation_service_client::RevocationServiceClient,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};
use tracing::{debug, info, warn};

use crate::Verifier;

/// An answer that is due at once is waited for this long.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The first wait before trying again; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(25);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Tokens that name keys unknown here make the verifier ask for the keys, but no more often than this.
const BETWEEN_KEY_FETCHES: Duration = Duration::from_secs(1);
/// A snapshot of the revocations is one message; a million of them are about 60 MB.
const LARGEST_MESSAGE: usize = 512 * 1024 * 1024;

impl Verifier {
    /// Starts a task that keeps the keys and revocations those of the auth service behind `channel`, until
    /// `shutdown`.
    ///
    /// While the auth service cannot be reached, what is known holds on; the task tries again, at first soon and
    /// then less often, and goes on where it stopped, so that no revocation is missed. Only the channel can notice
    /// a peer that is gone without a word: give it HTTP/2 keep-alive.
    pub fn follow(&self, channel: Channel, shutdown: CancellationToken) -> JoinHandle<()> {
        let follower = Follower {
            verifier: self.clone(),
            auth: AuthServiceClient::new(channel.clone()),
            revocations: RevocationServiceClient::new(channel).max_decoding_message_size(LARGEST_MESSAGE),
            cursor: 0,
        };
        tokio::spawn(async move {
            // Nothing is half done at any await, so the task may end at each.
            shutdown.run_until_cancelled(follower.run()).await;
        })
    }
}

struct Follower {
    verifier: Verifier,
    auth: AuthServiceClient<Channel>,
    revocations: RevocationServiceClient<Channel>,
    /// Where to go on after a break.
    cursor: i64,
}

impl Follower {
    async fn run(mut self) {
        let mut wait = FIRST_WAIT;
        let mut loss_was_told = false;
        loop {
            let mut in_touch = false;
            let ended = self.stay_in_touch(&mut in_touch).await;
            let failure = ended.err().unwrap_or_else(|| Status::unavailable("the stream ended"));
            if in_touch {
                wait = FIRST_WAIT;
                loss_was_told = false;
            }
            if loss_was_told {
                debug!(error = failure.message(), "the auth service is still out of reach");
            } else {
                warn!(error = failure.message(), "out of touch with the auth service, trying to reach it");
                loss_was_told = true;
            }
            sleep(with_jitter(wait)).await;
            wait = LONGEST_WAIT.min(2 * wait);
        }
    }

    /// Syncs, sets `in_touch`, and applies what comes until the stream ends or fails.
    async fn stay_in_touch(&mut self, in_touch: &mut bool) -> Result<(), Status> {
        self.fetch_keys().await?;
        let mut keys_fetched = Instant::now();
        let request = WatchRevocationsRequest { cursor: self.cursor };
        let answer = in_time(self.revocations.watch_revocations(request)).await?;
        let mut stream = answer.into_inner();
        let Some(snapshot) = in_time(stream.message()).await? else { return Ok(()) };
        self.apply(&snapshot);
        self.verifier.mark_synced();
        *in_touch = true;
        info!(
            revocations = snapshot.revocations.len(),
            cursor = self.cursor,
            "in touch with the auth service"
        );

        let shared = self.verifier.shared.clone();
        let mut keys_wanted = false;
        loop {
            tokio::select! {
                message = stream.message() => match message? {
                    Some(news) => self.apply(&news),
                    None => return Ok(()),
                },
                () = shared.unknown_key.notified(), if !keys_wanted => keys_wanted = true,
                () = sleep_until(keys_fetched + BETWEEN_KEY_FETCHES), if keys_wanted => {
                    self.fetch_keys().await?;
                    keys_fetched = Instant::now();
                    keys_wanted = false;
                }
            }
        }
    }

    async fn fetch_keys(&mut self) -> Result<(), Status> {
        let published = in_time(self.auth.get_jwks(GetJwksRequest {})).await?.into_inner().keys;
        if self.verifier.replace_keys(&published) == 0 {
            return Err(Status::failed_precondition("the auth service publishes no key that can be used"));
        }
        Ok(())
    }

    fn apply(&mut self, news: &WatchRevocationsResponse) {
        self.verifier.revoke_all(&news.revocations);
        self.cursor = news.cursor;
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    timeout(ANSWER_WITHIN, answer)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
}

/// Between half of `wait` and all of it, so that many verifiers do not come back all at once.
fn with_jitter(wait: Duration) -> Duration {
    let fraction = getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX));
    wait.mul_f64(0.5 + fraction / 2.0)
}
