//! Reports of embedders: what of them is accepted, and how it is summed up.

use std::{collections::BTreeMap, ops::AddAssign};

use muse_proto::{Error, limits::MAX_USAGE_COUNTS, v1};
use muse_verifier::api_keys::KeyId;

use super::{DAY, HOUR, HOUR_RETENTION_SECONDS, start_of};
use crate::error::invalid;

/// Bytes of the id of a reporter.
const MAX_REPORTER_BYTES: usize = 64;
/// Bytes of a name. Those of imported users may be longer than those of new ones.
const MAX_NAME_BYTES: usize = 1_024;
/// The largest number in a report: more than any embedder computes within an hour, and so small
/// that no sum of reports overflows.
const MAX_COUNT: u64 = 1 << 36;

/// A user and the id of an API key; 0 for calls with tokens.
pub(crate) type UsageSubject = (String, i64);

/// What was counted for a subject, in the integers of the database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct UsageSums {
    pub(crate) requests: i64,
    pub(crate) sentences: i64,
    pub(crate) tokens: i64,
    pub(crate) refused: i64,
}

impl AddAssign for UsageSums {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.sentences += other.sentences;
        self.tokens += other.tokens;
        self.refused += other.refused;
    }
}

/// The usage of a subject within an hour or a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UsageEntry {
    /// The seconds of the hour or day.
    pub(crate) span: i64,
    pub(crate) start: i64,
    pub(crate) subject: UsageSubject,
    pub(crate) counts: UsageSums,
}

/// A report that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UsageReport {
    pub(crate) reporter: String,
    pub(crate) sequence: i64,
    /// By hour and by day; each hour or day of a subject occurs once.
    pub(crate) entries: Vec<UsageEntry>,
}

impl UsageReport {
    /// The tokens of each subject on the days from `start` on.
    pub(crate) fn tokens_since(&self, start: i64, subject: &UsageSubject) -> i64 {
        let (username, key_id) = subject;
        let of_subject = |entry: &&UsageEntry| {
            entry.span == DAY
                && entry.start >= start
                && entry.subject.0 == *username
                // The quota of a user is for all calls of the user.
                && (*key_id == 0 || entry.subject.1 == *key_id)
        };
        self.entries.iter().filter(of_subject).map(|entry| entry.counts.tokens).sum()
    }
}

/// Checks a report that arrives at the time `now`, and sums it up by hours and days.
///
/// The clocks of embedders may differ: hours more than one hour ahead, or more than 31 days ago,
/// count for the current hour.
pub(super) fn check(report: v1::ReportUsageRequest, now: i64) -> Result<UsageReport, Error> {
    let v1::ReportUsageRequest { reporter, sequence, counts } = report;
    let is_reporter_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !(1..=MAX_REPORTER_BYTES).contains(&reporter.len()) || !reporter.bytes().all(is_reporter_byte) {
        return Err(invalid("reporter", "reporter: it is 1 to 64 bytes of a-z, 0-9 and -"));
    }
    let sequence = i64::try_from(sequence).ok().filter(|&sequence| sequence > 0);
    let sequence = sequence.ok_or_else(|| invalid("sequence", "sequence: it begins at 1"))?;
    if counts.len() > MAX_USAGE_COUNTS {
        return Err(invalid("counts", format!("counts: a report has at most {MAX_USAGE_COUNTS}")));
    }
    let mut sums = BTreeMap::<(i64, i64, UsageSubject), UsageSums>::new();
    for (index, count) in counts.into_iter().enumerate() {
        let (hour, subject, counts) = checked(count, now)
            .ok_or_else(|| invalid(&format!("counts[{index}]"), "a name or a number is out of range"))?;
        for span in [HOUR, DAY] {
            *sums.entry((span, start_of(hour, span), subject.clone())).or_default() += counts;
        }
    }
    let entries =
        sums.into_iter().map(|((span, start, subject), counts)| UsageEntry { span, start, subject, counts });
    Ok(UsageReport { reporter, sequence, entries: entries.collect() })
}

fn checked(count: v1::UsageCount, now: i64) -> Option<(i64, UsageSubject, UsageSums)> {
    let v1::UsageCount { hour, username, key_id, requests, sentences, tokens, refused } = count;
    // Postgres stores no NUL.
    if !(1..=MAX_NAME_BYTES).contains(&username.len()) || username.contains('\0') {
        return None;
    }
    let number = |number: u64| i64::try_from(number).ok().filter(|_| number <= MAX_COUNT);
    let counts = UsageSums {
        requests: number(requests)?,
        sentences: number(sentences)?,
        tokens: number(tokens)?,
        refused: number(refused)?,
    };
    let is_plausible = (now - HOUR_RETENTION_SECONDS..=now + HOUR).contains(&hour);
    let hour = start_of(if is_plausible { hour } else { now }, HOUR);
    let key_id = key_id.map_or(0, |id| KeyId::new(id).number().cast_signed());
    Some((hour, (username, key_id), counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 100 * DAY + 5 * HOUR + 7;

    fn count(hour: i64, key_id: Option<u64>, tokens: u64) -> v1::UsageCount {
        v1::UsageCount { hour, username: "ann".to_owned(), key_id, tokens, ..v1::UsageCount::default() }
    }

    fn report(counts: Vec<v1::UsageCount>) -> v1::ReportUsageRequest {
        v1::ReportUsageRequest { reporter: "a-1".to_owned(), sequence: 1, counts }
    }

    #[test]
    fn report_is_summed_up_by_hours_and_days() {
        let hours = [99 * DAY + HOUR, 99 * DAY + 2 * HOUR, 99 * DAY + 2 * HOUR, i64::MAX, i64::MIN];
        let checked = check(report(hours.map(|hour| count(hour, None, 1)).to_vec()), NOW).unwrap();
        let sums: Vec<_> = checked.entries.iter().map(|e| (e.span, e.start, e.counts.tokens)).collect();
        assert_eq!(
            sums,
            [
                (HOUR, 99 * DAY + HOUR, 1),
                (HOUR, 99 * DAY + 2 * HOUR, 2),
                (HOUR, 100 * DAY + 5 * HOUR, 2),
                (DAY, 99 * DAY, 3),
                (DAY, 100 * DAY, 2),
            ]
        );
    }

    #[test]
    fn quota_of_a_user_counts_the_keys() {
        let counts = vec![count(NOW, None, 1), count(NOW, Some(7), 2), count(NOW - DAY, Some(7), 4)];
        let checked = check(report(counts), NOW).unwrap();
        let tokens = |start, key_id| checked.tokens_since(start, &("ann".to_owned(), key_id));
        assert_eq!((tokens(0, 0), tokens(100 * DAY, 0), tokens(0, 7), tokens(0, 8)), (7, 3, 6, 0));
        assert_eq!(checked.tokens_since(0, &("bob".to_owned(), 0)), 0);
    }

    #[test]
    fn malformed_report_is_rejected() {
        let field = |report| check(report, NOW).unwrap_err().field().map(str::to_owned);
        let valid = report(vec![count(NOW, None, 1)]);
        for reporter in ["", "A", "a b", &"a".repeat(65)] {
            let report = v1::ReportUsageRequest { reporter: reporter.to_owned(), ..valid.clone() };
            assert_eq!(field(report).as_deref(), Some("reporter"), "{reporter}");
        }
        for sequence in [0, u64::MAX] {
            assert_eq!(
                field(v1::ReportUsageRequest { sequence, ..valid.clone() }).as_deref(),
                Some("sequence")
            );
        }
        let many = vec![count(NOW, None, 1); MAX_USAGE_COUNTS + 1];
        assert_eq!(field(report(many)).as_deref(), Some("counts"));
        for username in ["", "a\0b", &"a".repeat(1_025)] {
            let count = v1::UsageCount { username: username.to_owned(), ..count(NOW, None, 1) };
            assert_eq!(field(report(vec![count])).as_deref(), Some("counts[0]"), "{username:?}");
        }
        for count in [
            v1::UsageCount { requests: u64::MAX, ..count(NOW, None, 1) },
            v1::UsageCount { tokens: MAX_COUNT + 1, ..count(NOW, None, 1) },
        ] {
            assert_eq!(field(report(vec![count])).as_deref(), Some("counts[0]"));
        }
    }
}
