//! Change notification: reports that the database has changed, in this process or another.

use std::{convert::Infallible, time::Duration};

use sea_orm::{
    DatabaseConnection, DbBackend,
    sqlx::{self, postgres::PgListener, sqlite::SqlitePool},
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::warn;

use super::{CHANNEL, Store};

/// Interval at which a SQLite file is polled for changes of other processes.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Notifies subscribers that the database has changed. They read what has changed.
#[derive(Debug, Clone)]
pub(crate) struct ChangeNotifier(watch::Sender<()>);

impl ChangeNotifier {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(()))
    }

    pub(crate) fn notify(&self) {
        self.0.send_replace(());
    }

    /// Subscribes to changes from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }
}

impl Store {
    /// Notifies of changes by other processes. Never returns.
    pub(crate) async fn watch(&self) -> Infallible {
        loop {
            let failure = match self.db.get_database_backend() {
                DbBackend::Postgres => listen_postgres(&self.db, &self.changes).await,
                _ => poll_sqlite(self.db.get_sqlite_connection_pool(), &self.changes).await,
            };
            let Err(failure) = failure;
            warn!(%failure, "cannot watch the database for changes, retrying");
            sleep(RETRY_AFTER).await;
        }
    }
}

/// Polls SQLite's counter of commits by other connections. The index of the write-ahead log is
/// shared memory, so a poll takes a few microseconds.
async fn poll_sqlite(pool: &SqlitePool, changes: &ChangeNotifier) -> Result<Infallible, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut ticks = interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut last_version = None;
    loop {
        let version: i64 = sqlx::query_scalar("PRAGMA data_version").fetch_one(&mut *connection).await?;
        if last_version.replace(version) != Some(version) {
            changes.notify();
        }
        ticks.tick().await;
    }
}

async fn listen_postgres(
    db: &DatabaseConnection,
    changes: &ChangeNotifier,
) -> Result<Infallible, sqlx::Error> {
    let mut listener = PgListener::connect_with(db.get_postgres_connection_pool()).await?;
    listener.listen(CHANNEL).await?;
    loop {
        // At the start, and after a lost connection (`try_recv` returns `None`): notifications may
        // be missing.
        changes.notify();
        while listener.try_recv().await?.is_some() {
            changes.notify();
        }
    }
}
