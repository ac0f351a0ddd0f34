//! The task that follows the revocation stream of the auth service.

use std::time::Duration;

use muse_proto::{
    limits::MAX_KEY_USES,
    v1::{
        ReportKeyUseRequest, WatchRevocationsRequest, WatchRevocationsResponse,
        revocation_service_client::RevocationServiceClient,
    },
};
use muse_server::backoff::{Backoff, reason};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, transport::Channel};
use tracing::{debug, info, warn};

use crate::{
    Verifier,
    api_keys::{KeyTable, message},
    quotas::QuotaTable,
};

/// The auth service sends a message every second; after this time without one the connection is
/// lost.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// The bounds of the back-off between two attempts to connect.
const MIN_BACKOFF: Duration = Duration::from_millis(25);
const MAX_BACKOFF: Duration = Duration::from_secs(1);
/// The interval of reports of where API keys were used.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

impl Verifier {
    /// Starts a task that updates the keys and revocations from the auth service behind `channel`,
    /// until `shutdown`.
    ///
    /// While the auth service is unreachable, tokens are verified with the present state until it
    /// is too old. The task reconnects with exponential back-off of up to a second and resumes at
    /// its cursor, so that no revocation is missed.
    pub fn follow(&self, channel: Channel, shutdown: CancellationToken) -> JoinHandle<()> {
        let revocations = RevocationServiceClient::new(channel);
        let reports = report_key_uses(self.clone(), revocations.clone());
        let task = SyncTask {
            verifier: self.clone(),
            revocations,
            position: WatchRevocationsRequest::default(),
            new_table: None,
            new_quotas: None,
        };
        tokio::spawn(async move {
            // Cancellation safe: no update is incomplete at an await.
            let both = async { tokio::join!(task.run(), reports) };
            shutdown.run_until_cancelled(both).await;
        })
    }
}

struct SyncTask {
    verifier: Verifier,
    revocations: RevocationServiceClient<Channel>,
    /// Where the stream resumes after a reconnect.
    position: WatchRevocationsRequest,
    /// The API keys of the messages so far that replace all others, until the last of them.
    new_table: Option<KeyTable>,
    /// The quotas at the start of a stream, until all of them have arrived.
    new_quotas: Option<QuotaTable>,
}

/// Reports where API keys were used. A report that fails is repeated, unless it was rejected.
async fn report_key_uses(verifier: Verifier, mut revocations: RevocationServiceClient<Channel>) {
    loop {
        tokio::time::sleep(REPORT_INTERVAL).await;
        loop {
            let uses = verifier.key_uses().take(MAX_KEY_USES);
            if uses.is_empty() {
                break;
            }
            let report = ReportKeyUseRequest { uses: uses.iter().map(message).collect() };
            if let Err(failure) = with_timeout(revocations.report_key_use(report)).await {
                debug!(error = reason(&failure), "cannot report the use of API keys");
                if !matches!(failure.code(), Code::InvalidArgument | Code::Unimplemented) {
                    verifier.key_uses().restore(uses);
                    break;
                }
            }
        }
    }
}

impl SyncTask {
    async fn run(mut self) {
        let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
        let mut loss_was_logged = false;
        loop {
            let ended = self.follow_stream().await;
            let failure = ended.err().unwrap_or_else(|| Status::unavailable("the stream ended"));
            if self.verifier.sync_state().is_current() {
                self.verifier.sync_state().mark_disconnected();
                backoff.reset();
                loss_was_logged = false;
            }
            let error = reason(&failure);
            if loss_was_logged {
                debug!(error, "the auth service is still unreachable");
            } else {
                warn!(error, "no connection to the auth service, retrying");
                loss_was_logged = true;
            }
            backoff.wait().await;
        }
    }

    /// Applies the messages of a stream until it ends or fails.
    async fn follow_stream(&mut self) -> Result<(), Status> {
        self.new_table = None;
        self.new_quotas = Some(QuotaTable::default());
        let mut stream =
            with_timeout(self.revocations.watch_revocations(self.position.clone())).await?.into_inner();
        let mut revocations = 0;
        while let Some(message) = with_timeout(stream.message()).await? {
            self.apply(&message)?;
            revocations += message.revocations.len();
            // Revocations are missing until the last message of the backlog.
            if message.more {
                continue;
            }
            if !self.verifier.sync_state().is_current() {
                info!(revocations, cursor = message.cursor, "synced with the auth service");
            }
            self.verifier.sync_state().mark_synced();
        }
        Ok(())
    }

    fn apply(&mut self, message: &WatchRevocationsResponse) -> Result<(), Status> {
        if !message.keys.is_empty() {
            self.verifier.replace_keys(&message.keys);
        }
        if !self.verifier.has_keys() {
            return Err(Status::failed_precondition("the auth service publishes no usable key"));
        }
        self.verifier.revoke_all(&message.revocations);
        self.apply_keys(message);
        self.apply_quotas(message);
        // A table that is incomplete when the connection is lost is sent again.
        let key_cursor = if self.new_table.is_some() { 0 } else { message.key_cursor };
        self.position =
            WatchRevocationsRequest { cursor: message.cursor, log: message.log.clone(), key_cursor };
        Ok(())
    }

    /// Applies the API keys of a message. The present ones remain in use until those that replace
    /// them are complete, but their changes take effect at once.
    fn apply_keys(&mut self, message: &WatchRevocationsResponse) {
        if message.all_api_keys && self.new_table.is_none() {
            self.new_table = Some(KeyTable::new());
        }
        match &self.new_table {
            Some(table) => {
                message.api_keys.iter().for_each(|key| table.apply(key));
                if self.verifier.synced() {
                    self.verifier.apply_keys_of_snapshot(&message.api_keys);
                }
            }
            None if message.key_cursor > 0 => self.verifier.apply_keys(&message.api_keys),
            // An auth service that has no API keys, as before they were introduced: none is valid.
            None => self.new_table = (self.position.key_cursor > 0).then(KeyTable::new),
        }
        if !message.more
            && let Some(table) = self.new_table.take()
        {
            debug!(keys = table.len(), "replaced the API keys");
            self.verifier.replace_key_table(table);
        }
    }

    /// Applies the quotas of a message: at the start of a stream all of them, which replace the
    /// present ones when they are complete, and then changes.
    fn apply_quotas(&mut self, message: &WatchRevocationsResponse) {
        match &mut self.new_quotas {
            Some(table) => message.quotas.iter().for_each(|state| table.apply(state)),
            None => self.verifier.apply_quotas(&message.quotas),
        }
        if !message.more
            && let Some(table) = self.new_quotas.take()
        {
            self.verifier.replace_quotas(table);
        }
    }
}

async fn with_timeout<T>(response: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    timeout(MESSAGE_TIMEOUT, response)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("no message for too long")))
}
