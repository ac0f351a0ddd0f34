//! `muse.v1.RevocationService`.
//!
//! What a watcher gets is read from the database, each time that something is new there. So all see the same order,
//! a slow watcher gets more at once instead of missing something, and resuming is the same as going on.

use std::pin::Pin;

use futures::{Stream, StreamExt, stream};
use muse_proto::v1::{WatchRevocationsRequest, WatchRevocationsResponse, revocation_service_server};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    clock,
    error::internal,
    store::{Store, StoredRevocations},
};

/// Says that there is a new revocation in the database.
#[derive(Debug, Clone)]
pub(crate) struct News(watch::Sender<()>);

impl News {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(()))
    }

    pub(crate) fn announce(&self) {
        self.0.send_replace(());
    }
}

/// Streams revocations to those who verify tokens.
pub(crate) struct RevocationService {
    pub(crate) store: Store,
    pub(crate) news: News,
    /// Ends the streams, which would hold up the shutdown.
    pub(crate) shutdown: CancellationToken,
}

/// A watcher between two messages.
struct Watcher {
    store: Store,
    news: watch::Receiver<()>,
    cursor: i64,
    /// The first message is sent even if there is nothing in it.
    greeted: bool,
}

impl Watcher {
    async fn next(mut self) -> Result<Option<(WatchRevocationsResponse, Self)>, Status> {
        loop {
            // Marked as seen before reading, so that what comes in between is looked for once more.
            self.news.mark_unchanged();
            let found = self.store.revocations_after(self.cursor, clock::now()).await.map_err(internal)?;
            let StoredRevocations { revocations, cursor } = found;
            self.cursor = cursor;
            if !self.greeted || !revocations.is_empty() {
                self.greeted = true;
                return Ok(Some((WatchRevocationsResponse { revocations, cursor }, self)));
            }
            if self.news.changed().await.is_err() {
                return Ok(None);
            }
        }
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
        let asked = request.into_inner().cursor;
        // A cursor from the future is one of another database; then everything is new.
        let known = asked <= self.store.last_cursor().await.map_err(internal)?;
        let watcher = Watcher {
            store: self.store.clone(),
            news: self.news.0.subscribe(),
            cursor: if known { asked } else { 0 },
            greeted: false,
        };
        let messages =
            stream::try_unfold(watcher, Watcher::next).take_until(self.shutdown.clone().cancelled_owned());
        Ok(Response::new(Box::pin(messages)))
    }
}
