//! `muse.v1.RevocationService`.
//!
//! Each watcher reads revocations from the database by a cursor whenever the database has changed.
//! So all watchers see the same order, a slow one gets larger messages and misses nothing, and a
//! stream resumes from any cursor. Quotas are few: each stream begins with all of them.

use std::{net::IpAddr, pin::Pin, time::Duration};

use futures::{Stream, StreamExt, stream};
use muse_proto::{
    limits::MAX_KEY_USES,
    v1::{
        JsonWebKey, KeyUse, ReportKeyUseRequest, ReportKeyUseResponse, ReportUsageRequest,
        ReportUsageResponse, WatchRevocationsRequest, WatchRevocationsResponse, revocation_service_server,
    },
};
use muse_verifier::api_keys::{SECONDS_PER_DAY, network};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    clock,
    error::{database_failed, invalid},
    keys::KeyringReceiver,
    store::{KeyPage, QuotaPage, RevocationPage, Store},
    usage::Usage,
};

/// A message is sent at least this often, by which watchers detect a lost connection.
const HEARTBEAT: Duration = Duration::from_secs(1);

const MAX_CLOCK_SKEW_SECONDS: i64 = 3600;

/// Streams revocations, signing keys and API keys to verifiers.
pub(crate) struct RevocationService {
    pub(crate) store: Store,
    pub(crate) usage: Usage,
    /// The name of the revocation log, in which cursors are positions.
    pub(crate) log: String,
    pub(crate) keys: KeyringReceiver,
    /// Ends the streams, which would delay the shutdown.
    pub(crate) shutdown: CancellationToken,
}

/// The state of a stream between two messages.
struct Watcher {
    store: Store,
    log: String,
    changes: watch::Receiver<()>,
    keys: KeyringReceiver,
    /// The keys of the last message that had some.
    sent_keys: Vec<JsonWebKey>,
    cursor: i64,
    key_cursor: i64,
    quota_cursor: i64,
    /// Whether all API keys are being sent, up to the first message without `more`.
    all_api_keys: bool,
    /// Whether a message is sent without waiting: the first one, or one after a full page.
    is_due: bool,
}

impl Watcher {
    async fn next(mut self) -> Result<Option<(WatchRevocationsResponse, Self)>, Status> {
        let heartbeat = Instant::now() + HEARTBEAT;
        loop {
            // Before the read, so that a change during the read causes another one.
            self.changes.mark_unchanged();
            let keys = self.changed_keys();
            let page =
                self.store.revocations_after(self.cursor, clock::now()).await.map_err(database_failed)?;
            let RevocationPage { revocations, cursor, full } = page;
            let KeyPage { keys: api_keys, cursor: key_cursor, full: more_keys } =
                self.store.api_keys_after(self.key_cursor).await.map_err(database_failed)?;
            let QuotaPage { quotas, cursor: quota_cursor, full: more_quotas } =
                self.store.quotas_after(self.quota_cursor).await.map_err(database_failed)?;
            let is_news =
                !revocations.is_empty() || !keys.is_empty() || !api_keys.is_empty() || !quotas.is_empty();
            if self.is_due || is_news || heartbeat <= Instant::now() {
                let more = full || more_keys || more_quotas;
                self.cursor = cursor;
                // A cursor of 0 would request all keys, of which there are none.
                self.key_cursor = key_cursor.max(1);
                self.quota_cursor = quota_cursor;
                let message = WatchRevocationsResponse {
                    revocations,
                    cursor,
                    log: self.log.clone(),
                    more,
                    keys,
                    api_keys,
                    key_cursor: self.key_cursor,
                    all_api_keys: self.all_api_keys,
                    quotas,
                };
                self.is_due = more;
                self.all_api_keys &= more;
                return Ok(Some((message, self)));
            }
            tokio::select! {
                changed = self.changes.changed() => if changed.is_err() { return Ok(None) },
                changed = self.keys.changed() => if changed.is_err() { return Ok(None) },
                () = sleep_until(heartbeat) => (),
            }
        }
    }

    /// The public keys, if they differ from those that were sent.
    fn changed_keys(&mut self) -> Vec<JsonWebKey> {
        let published = self.keys.borrow_and_update().published(clock::now());
        if published == self.sent_keys {
            return Vec::new();
        }
        self.sent_keys.clone_from(&published);
        published
    }
}

/// A use whose day and network are well formed.
fn checked(KeyUse { id, day, origin }: KeyUse, now: i64) -> Option<KeyUse> {
    // The clocks of the gateways may differ, but a day in the future would hide later uses.
    if day <= 0 || day % SECONDS_PER_DAY != 0 || day > now + MAX_CLOCK_SKEW_SECONDS {
        return None;
    }
    let (address, prefix) = origin.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let expected = if address.is_ipv4() { "24" } else { "48" };
    (prefix == expected).then(|| KeyUse { id, day, origin: network(address) })
}

#[tonic::async_trait]
impl revocation_service_server::RevocationService for RevocationService {
    type WatchRevocationsStream =
        Pin<Box<dyn Stream<Item = Result<WatchRevocationsResponse, Status>> + Send>>;

    async fn watch_revocations(
        &self,
        request: Request<WatchRevocationsRequest>,
    ) -> Result<Response<Self::WatchRevocationsStream>, Status> {
        let WatchRevocationsRequest { cursor, log, key_cursor } = request.into_inner();
        // A cursor beyond the last one is from before the database was restored: start over.
        let last = self.store.last_cursor().await.map_err(database_failed)?;
        let key_cursors = self.store.key_cursors().await.map_err(database_failed)?;
        let is_known = log == self.log && cursor <= last;
        // Both cursors are independent: revocations are pruned earlier.
        let is_known_key_version = log == self.log && key_cursors.contains(&key_cursor);
        let watcher = Watcher {
            store: self.store.clone(),
            log: self.log.clone(),
            changes: self.store.changes().subscribe(),
            keys: self.keys.clone(),
            sent_keys: Vec::new(),
            cursor: if is_known { cursor } else { 0 },
            key_cursor: if is_known_key_version { key_cursor } else { 0 },
            quota_cursor: 0,
            all_api_keys: !is_known_key_version,
            is_due: true,
        };
        let messages =
            stream::try_unfold(watcher, Watcher::next).take_until(self.shutdown.clone().cancelled_owned());
        Ok(Response::new(Box::pin(messages)))
    }

    async fn report_key_use(
        &self,
        request: Request<ReportKeyUseRequest>,
    ) -> Result<Response<ReportKeyUseResponse>, Status> {
        let now = clock::now();
        let uses = request.into_inner().uses;
        if uses.len() > MAX_KEY_USES {
            return Err(invalid("uses", format!("a report has at most {MAX_KEY_USES} uses")).into());
        }
        let uses: Vec<KeyUse> = uses.into_iter().filter_map(|key_use| checked(key_use, now)).collect();
        if !uses.is_empty() {
            self.store.record_key_uses(&uses).await.map_err(database_failed)?;
        }
        Ok(Response::new(ReportKeyUseResponse {}))
    }

    async fn report_usage(
        &self,
        request: Request<ReportUsageRequest>,
    ) -> Result<Response<ReportUsageResponse>, Status> {
        self.usage.record(request.into_inner()).await?;
        Ok(Response::new(ReportUsageResponse {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_days_and_networks_are_recorded() {
        let origin = |day, origin: &str| {
            let key_use = KeyUse { id: 1, day, origin: origin.to_owned() };
            checked(key_use, 3 * SECONDS_PER_DAY).map(|key_use| key_use.origin)
        };
        assert_eq!(origin(SECONDS_PER_DAY, "192.0.2.7/24").as_deref(), Some("192.0.2.0/24"));
        assert_eq!(origin(SECONDS_PER_DAY, "2001:db8::/48").as_deref(), Some("2001:db8::/48"));
        for (day, invalid) in [
            (0, "192.0.2.0/24"),
            (-SECONDS_PER_DAY, "192.0.2.0/24"),
            (SECONDS_PER_DAY + 1, "192.0.2.0/24"),
            (4 * SECONDS_PER_DAY, "192.0.2.0/24"),
            (SECONDS_PER_DAY, "192.0.2.0/48"),
            (SECONDS_PER_DAY, "2001:db8::/24"),
            (SECONDS_PER_DAY, "\u{1b}[2J/24"),
            (SECONDS_PER_DAY, "192.0.2.0"),
        ] {
            assert_eq!(origin(day, invalid), None, "{day} {invalid:?}");
        }
    }
}
