//! Notices that something in the database has changed, whoever changed it.

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

/// How long a change that another process makes to a SQLite file may go unnoticed.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
const BEFORE_ANOTHER_TRY: Duration = Duration::from_millis(500);

/// Says that something has changed; what it is, the listener reads.
#[derive(Debug, Clone)]
pub(crate) struct Changes(watch::Sender<()>);

impl Changes {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(()))
    }

    pub(crate) fn announce(&self) {
        self.0.send_replace(());
    }

    /// A listener who is told from now on.
    pub(crate) fn listen(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }
}

impl Store {
    /// Announces the changes that other processes make, for ever.
    pub(crate) async fn watch(&self) -> Infallible {
        loop {
            let failure = match self.db.get_database_backend() {
                DbBackend::Postgres => listen(&self.db, &self.changes).await,
                _ => look(self.db.get_sqlite_connection_pool(), &self.changes).await,
            };
            let Err(failure) = failure;
            warn!(%failure, "cannot watch the database for changes, trying again");
            sleep(BEFORE_ANOTHER_TRY).await;
        }
    }
}

/// SQLite keeps a counter that moves with each commit of another connection. The log of changes lies in memory that
/// the processes share, so a look costs some microseconds.
async fn look(pool: &SqlitePool, changes: &Changes) -> Result<Infallible, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let mut ticks = interval(BETWEEN_LOOKS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut seen = None;
    loop {
        let version: i64 = sqlx::query_scalar("PRAGMA data_version").fetch_one(&mut *connection).await?;
        if seen.replace(version) != Some(version) {
            changes.announce();
        }
        ticks.tick().await;
    }
}

async fn listen(db: &DatabaseConnection, changes: &Changes) -> Result<Infallible, sqlx::Error> {
    let mut listener = PgListener::connect_with(db.get_postgres_connection_pool()).await?;
    listener.listen(CHANNEL).await?;
    loop {
        // At the start, and after a break (when `try_recv` gives nothing): something may have gone by.
        changes.announce();
        while listener.try_recv().await?.is_some() {
            changes.announce();
        }
    }
}
