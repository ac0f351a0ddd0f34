//! Keeps a verifier up to date from a running auth service.

use std::time::Duration;

use muse_proto::v1::{
    WatchRevocationsRequest, WatchRevocationsResponse, revocation_service_client::RevocationServiceClient,
};
use muse_server::backoff::{Backoff, reason};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};
use tracing::{debug, info, warn};

use crate::Verifier;

/// The auth service sends something every second; after this long without, it is as good as gone.
const SILENCE: Duration = Duration::from_secs(5);
/// The first wait before trying again; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(25);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

impl Verifier {
    /// Starts a task that keeps the keys and revocations those of the auth service behind `channel`, until
    /// `shutdown`.
    ///
    /// While the auth service cannot be reached, what is known holds on for a while; the task tries again, at first
    /// soon and then once a second, and goes on where it stopped, so that no revocation is missed.
    pub fn follow(&self, channel: Channel, shutdown: CancellationToken) -> JoinHandle<()> {
        let follower = Follower {
            verifier: self.clone(),
            revocations: RevocationServiceClient::new(channel),
            place: WatchRevocationsRequest::default(),
        };
        tokio::spawn(async move {
            // Nothing is half done at any await, so the task may end at each.
            shutdown.run_until_cancelled(follower.run()).await;
        })
    }
}

struct Follower {
    verifier: Verifier,
    revocations: RevocationServiceClient<Channel>,
    /// Where to go on after a break.
    place: WatchRevocationsRequest,
}

impl Follower {
    async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut loss_was_told = false;
        loop {
            let ended = self.stay_in_touch().await;
            let failure = ended.err().unwrap_or_else(|| Status::unavailable("the stream ended"));
            if self.verifier.contact().in_touch() {
                self.verifier.contact().lost();
                backoff.reset();
                loss_was_told = false;
            }
            let error = reason(&failure);
            if loss_was_told {
                debug!(error, "the auth service is still out of reach");
            } else {
                warn!(error, "out of touch with the auth service, trying to reach it");
                loss_was_told = true;
            }
            backoff.wait().await;
        }
    }

    /// Applies what comes until the stream ends or fails.
    async fn stay_in_touch(&mut self) -> Result<(), Status> {
        let mut stream = in_time(self.revocations.watch_revocations(self.place.clone())).await?.into_inner();
        let mut revocations = 0;
        while let Some(news) = in_time(stream.message()).await? {
            self.apply(&news)?;
            revocations += news.revocations.len();
            // In the middle of what happened while out of touch, the verifier knows less than it may need to.
            if news.more {
                continue;
            }
            if !self.verifier.contact().in_touch() {
                info!(revocations, cursor = news.cursor, "in touch with the auth service");
            }
            self.verifier.contact().complete();
        }
        Ok(())
    }

    fn apply(&mut self, news: &WatchRevocationsResponse) -> Result<(), Status> {
        if !news.keys.is_empty() {
            self.verifier.replace_keys(&news.keys);
        }
        if !self.verifier.has_keys() {
            return Err(Status::failed_precondition("the auth service publishes no key that can be used"));
        }
        self.verifier.revoke_all(&news.revocations);
        self.place = WatchRevocationsRequest { cursor: news.cursor, log: news.log.clone() };
        Ok(())
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    timeout(SILENCE, answer)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("nothing was heard for too long")))
}
