//! From which network each API key was used today, for the report to the auth service.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use muse_proto::v1::KeyUse;
use parking_lot::Mutex;

use super::KeyId;

/// Seconds of a day. Uses are recorded by days.
pub const SECONDS_PER_DAY: i64 = 86_400;
/// Keys whose use is remembered. Of more, some are reported more than once a day.
const MAX_KEYS: usize = 1 << 17;

/// A key, the start of the day of its use, and from which network.
pub(crate) type RecordedUse = (KeyId, (i64, IpAddr));

/// Records the first use of each key on each day, and each use from another network.
#[derive(Default)]
pub(crate) struct KeyUseLog(Mutex<Uses>);

#[derive(Default)]
struct Uses {
    /// The last recorded use of each key.
    recorded: HashMap<KeyId, (i64, IpAddr)>,
    /// What has not been reported yet.
    pending: HashMap<KeyId, (i64, IpAddr)>,
}

impl KeyUseLog {
    /// Records a use at the time `now` from `address`.
    pub(crate) fn record(&self, id: KeyId, address: IpAddr, now: i64) {
        let used = (now.div_euclid(SECONDS_PER_DAY) * SECONDS_PER_DAY, coarse(address));
        let mut uses = self.0.lock();
        if uses.recorded.get(&id) == Some(&used) {
            return;
        }
        if uses.recorded.len() >= MAX_KEYS {
            uses.recorded.clear();
        }
        uses.recorded.insert(id, used);
        if uses.pending.len() < MAX_KEYS {
            uses.pending.insert(id, used);
        }
    }

    /// Takes at most `limit` of the uses that have not been reported.
    pub(crate) fn take(&self, limit: usize) -> Vec<RecordedUse> {
        let pending = &mut self.0.lock().pending;
        let ids: Vec<KeyId> = pending.keys().copied().take(limit).collect();
        ids.into_iter().filter_map(|id| Some((id, pending.remove(&id)?))).collect()
    }

    /// Puts uses back that could not be reported. A later use of the same key takes precedence.
    pub(crate) fn restore(&self, uses: Vec<RecordedUse>) {
        let pending = &mut self.0.lock().pending;
        for (id, used) in uses {
            if pending.len() < MAX_KEYS {
                pending.entry(id).or_insert(used);
            }
        }
    }
}

/// A use in a report.
pub(crate) fn message(&(id, (day, origin)): &RecordedUse) -> KeyUse {
    KeyUse { id: id.number(), day, origin: network(origin) }
}

/// The first 24 bits of an IPv4 address, or 48 of IPv6.
fn coarse(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & !0xff).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !(u128::MAX >> 48)).into(),
    }
}

/// The network of an address, such as `192.0.2.0/24` or `2001:db8:1::/48`.
#[must_use]
pub fn network(address: IpAddr) -> String {
    match coarse(address) {
        IpAddr::V4(address) => format!("{address}/24"),
        IpAddr::V6(address) => format!("{address}/48"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_coarse() {
        for (address, expected) in [
            ("192.0.2.77", "192.0.2.0/24"),
            ("::ffff:192.0.2.77", "192.0.2.0/24"),
            ("2001:db8:1:2:3::4", "2001:db8:1::/48"),
            ("::1", "::/48"),
        ] {
            assert_eq!(network(address.parse().unwrap()), expected);
        }
    }

    #[test]
    fn use_is_reported_once_a_day_and_network() {
        let log = KeyUseLog::default();
        let record = |now, address: &str| log.record(KeyId::new(1), address.parse().unwrap(), now);
        record(5, "192.0.2.1");
        record(50_000, "192.0.2.200");
        let expected = |day, origin: &str| vec![KeyUse { id: 1, day, origin: origin.to_owned() }];
        let take = || log.take(9).iter().map(message).collect::<Vec<_>>();
        assert_eq!(take(), expected(0, "192.0.2.0/24"));
        record(60_000, "192.0.2.1");
        assert!(take().is_empty());
        record(70_000, "198.51.100.1");
        assert_eq!(take(), expected(0, "198.51.100.0/24"));
        record(86_400 + 5, "198.51.100.1");
        assert_eq!(take(), expected(86_400, "198.51.100.0/24"));
    }

    #[test]
    fn failed_report_is_repeated_without_undoing_later_uses() {
        let log = KeyUseLog::default();
        let record = |id, now| log.record(KeyId::new(id), IpAddr::from([192, 0, 2, 1]), now);
        for id in 0..3 {
            record(id, 0);
        }
        let failed = log.take(2);
        assert_eq!((failed.len(), log.take(9).len(), log.take(9).len()), (2, 1, 0));
        let (again, (_, origin)) = failed[0];
        record(again.number(), SECONDS_PER_DAY);
        log.restore(failed);
        let mut days: Vec<i64> = log.take(9).into_iter().map(|(_, (day, _))| day).collect();
        days.sort_unstable();
        assert_eq!((days, origin), (vec![0, SECONDS_PER_DAY], IpAddr::from([192, 0, 2, 0])));
    }
}
