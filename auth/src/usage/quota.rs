//! Quotas: limits on the tokens of a user or of an API key within a day or a month.

use std::fmt;

use chrono::{DateTime, Datelike, Months, NaiveTime};
use clap::ValueEnum;
use muse_proto::v1;

use super::{DAY, start_of};
use crate::{AuthError, error::invalid};

/// A limit on tokens within each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Tokens; 0 for no limit.
    pub tokens: u64,
    /// The period.
    pub period: QuotaPeriod,
}

/// The period of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum QuotaPeriod {
    /// A day (UTC).
    Day,
    /// A calendar month (UTC).
    Month,
}

impl QuotaPeriod {
    /// Its name, in the database and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The period of that name. An unknown one is the shortest.
    pub(crate) fn from_name(name: &str) -> Self {
        if name == Self::Month.as_str() { Self::Month } else { Self::Day }
    }

    /// The start of the period of a time, in seconds since 1970.
    pub(crate) fn start(self, time: i64) -> i64 {
        match self {
            Self::Day => start_of(time, DAY),
            Self::Month => month(time, 0),
        }
    }

    /// The end of the period of a time, which is the start of the next one.
    pub(crate) fn end(self, time: i64) -> i64 {
        match self {
            Self::Day => start_of(time, DAY).saturating_add(DAY),
            Self::Month => month(time, 1),
        }
    }
}

/// The start of the month of a time, or of a later one.
fn month(time: i64, months_later: u32) -> i64 {
    let day = DateTime::from_timestamp(time, 0).unwrap_or_default().date_naive();
    let first = day.with_day(1).and_then(|first| first.checked_add_months(Months::new(months_later)));
    first.unwrap_or(day).and_time(NaiveTime::MIN).and_utc().timestamp()
}

impl Quota {
    /// The most tokens of a quota.
    pub const MAX_TOKENS: u64 = 1_000_000_000_000_000;
    /// No quota.
    pub const NONE: Self = Self { tokens: 0, period: QuotaPeriod::Day };

    /// Whether it limits anything.
    pub(crate) fn is_limit(self) -> bool {
        self.tokens > 0
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_limit() {
            write!(f, "{} per {}", self.tokens, self.period.as_str())
        } else {
            f.write_str("none")
        }
    }
}

impl TryFrom<v1::Quota> for Quota {
    type Error = AuthError;

    fn try_from(quota: v1::Quota) -> Result<Self, AuthError> {
        let refused = |problem: String| AuthError::Rejected(invalid("quota", format!("quota: {problem}")));
        let period = match v1::QuotaPeriod::try_from(quota.period) {
            Ok(v1::QuotaPeriod::Unspecified | v1::QuotaPeriod::Day) => QuotaPeriod::Day,
            Ok(v1::QuotaPeriod::Month) => QuotaPeriod::Month,
            Err(_) => return Err(refused(format!("{} is not a period", quota.period))),
        };
        if quota.tokens > Self::MAX_TOKENS {
            return Err(refused(format!("it is at most {} tokens", Self::MAX_TOKENS)));
        }
        Ok(Self { tokens: quota.tokens, period })
    }
}

impl From<Quota> for v1::Quota {
    fn from(quota: Quota) -> Self {
        let period = match quota.period {
            QuotaPeriod::Day => v1::QuotaPeriod::Day,
            QuotaPeriod::Month => v1::QuotaPeriod::Month,
        };
        Self { tokens: quota.tokens, period: period.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_begin_at_midnight_utc() {
        let time = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().timestamp();
        let bounds = |period: QuotaPeriod, at| (period.start(time(at)), period.end(time(at)));
        for (period, at, start, end) in [
            (QuotaPeriod::Day, "2026-11-29T13:00:00Z", "2026-11-29T00:00:00Z", "2026-11-30T00:00:00Z"),
            (QuotaPeriod::Day, "2026-11-29T00:00:00Z", "2026-11-29T00:00:00Z", "2026-11-30T00:00:00Z"),
            (QuotaPeriod::Month, "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            (QuotaPeriod::Month, "2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
        ] {
            assert_eq!(bounds(period, at), (time(start), time(end)), "{at}");
        }
    }

    #[test]
    fn quota_beyond_the_limit_is_rejected() {
        let quota = |tokens, period| Quota::try_from(v1::Quota { tokens, period });
        assert_eq!(quota(5, 2).unwrap(), Quota { tokens: 5, period: QuotaPeriod::Month });
        assert_eq!(v1::Quota::from(quota(Quota::MAX_TOKENS, 0).unwrap()).period, 1);
        for (tokens, period) in [(Quota::MAX_TOKENS + 1, 1), (u64::MAX, 1), (5, 3), (5, -1)] {
            assert!(quota(tokens, period).is_err(), "{tokens} {period}");
        }
    }
}
