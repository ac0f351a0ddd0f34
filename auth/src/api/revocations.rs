//! `muse.v1.RevocationService`.
//!
//! What a watcher gets is read from the database, each time that something is new there. So all see the same order,
//! a slow watcher gets more at once instead of missing something, and resuming is the same as going on.

use std::{pin::Pin, time::Duration};

use futures::{Stream, StreamExt, stream};
use muse_proto::v1::{
    JsonWebKey, WatchRevocationsRequest, WatchRevocationsResponse, revocation_service_server,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    clock,
    error::database_failed,
    keys::Keys,
    store::{Page, Store},
};

/// Something is sent at least so often, so that a watcher knows that the silence is none.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Streams revocations to those who verify tokens.
pub(crate) struct RevocationService {
    pub(crate) store: Store,
    pub(crate) log: String,
    pub(crate) keys: Keys,
    /// Ends the streams, which would hold up the shutdown.
    pub(crate) shutdown: CancellationToken,
}

/// A watcher between two messages.
struct Watcher {
    store: Store,
    log: String,
    changes: watch::Receiver<()>,
    keys: Keys,
    /// As they were sent.
    sent_keys: Vec<JsonWebKey>,
    cursor: i64,
    /// Another message is due at once: the first one, or after a full page.
    due: bool,
}

impl Watcher {
    async fn next(mut self) -> Result<Option<(WatchRevocationsResponse, Self)>, Status> {
        let heartbeat = Instant::now() + HEARTBEAT;
        loop {
            // Marked as seen before reading, so that what comes in between is looked for once more.
            self.changes.mark_unchanged();
            let keys = self.new_keys();
            let page =
                self.store.revocations_after(self.cursor, clock::now()).await.map_err(database_failed)?;
            let Page { revocations, cursor, full: more } = page;
            if self.due || !revocations.is_empty() || !keys.is_empty() || heartbeat <= Instant::now() {
                self.cursor = cursor;
                self.due = more;
                let log = self.log.clone();
                return Ok(Some((WatchRevocationsResponse { revocations, cursor, log, more, keys }, self)));
            }
            tokio::select! {
                changed = self.changes.changed() => if changed.is_err() { return Ok(None) },
                changed = self.keys.changed() => if changed.is_err() { return Ok(None) },
                () = sleep_until(heartbeat) => (),
            }
        }
    }

    /// The public keys, if they are others than those that were sent.
    fn new_keys(&mut self) -> Vec<JsonWebKey> {
        let published = self.keys.borrow_and_update().published(clock::now());
        if published == self.sent_keys {
            return Vec::new();
        }
        self.sent_keys.clone_from(&published);
        published
    }
}

#[tonic::async_trait]
impl revocation_service_server::RevocationService for RevocationService {
    type WatchRevocationsStream =
        Pin<Box<dyn Stream<Item = Result<WatchRevocationsResponse, Status>> + Send>>;

    async fn watch_revocations(
        &self,
        request: Request<WatchRevocationsRequest>,
    ) -> Result<Response<Self::WatchRevocationsStream>, Status> {
        let asked = request.into_inner();
        // A cursor from the future is one of a database that was restored since; then everything is new.
        let last = self.store.last_cursor().await.map_err(database_failed)?;
        let known = asked.log == self.log && asked.cursor <= last;
        let watcher = Watcher {
            store: self.store.clone(),
            log: self.log.clone(),
            changes: self.store.changes().listen(),
            keys: self.keys.clone(),
            sent_keys: Vec::new(),
            cursor: if known { asked.cursor } else { 0 },
            due: true,
        };
        let messages =
            stream::try_unfold(watcher, Watcher::next).take_until(self.shutdown.clone().cancelled_owned());
        Ok(Response::new(Box::pin(messages)))
    }
}
