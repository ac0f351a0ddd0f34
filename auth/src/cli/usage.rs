//! `muse-auth usage`.

use std::io::{self, Write};

use chrono::{NaiveDate, NaiveTime};
use clap::Args;
use muse_auth::{AuthError, Usage, UsageGrouping, UsageQuery};

use super::{CommandError, utc};

/// Prints usage, one group per line, separated by tabs: the day or hour (UTC), the user and the id
/// of the API key, as far as the grouping has them; then the numbers of requests, sentences, tokens
/// and rejected requests. `-` is in place of the key for calls with tokens.
#[derive(Debug, Args)]
pub(crate) struct UsageArgs {
    /// The first day (UTC), such as 2026-11-01; 29 days before the last one by default.
    #[arg(long)]
    from: Option<NaiveDate>,
    /// The last day (UTC), which is included; today by default.
    #[arg(long)]
    to: Option<NaiveDate>,
    /// How usage is grouped; by day, user and key by default.
    #[arg(long, value_enum)]
    by: Option<UsageGrouping>,
    /// Only the usage of this user.
    #[arg(long)]
    user: Option<String>,
    /// Only the usage of the API key with this id, which may be deleted.
    #[arg(long)]
    key: Option<String>,
}

pub(super) async fn execute(args: &UsageArgs, usage: &Usage) -> Result<(), CommandError> {
    let midnight = |day: NaiveDate| day.and_time(NaiveTime::MIN).and_utc().timestamp();
    let grouping = args.by.unwrap_or_default();
    let key_id = args.key.as_deref().map(str::parse).transpose().map_err(|_| AuthError::NoSuchKey)?;
    let query = UsageQuery {
        from: args.from.map(midnight),
        to: args.to.map(midnight),
        grouping,
        username: args.user.as_deref(),
        key_id,
    };
    let rows = usage.list(query).await?;
    let mut out = io::stdout().lock();
    for row in rows {
        if let Some(start) = row.start {
            let start = utc(start);
            let text = if grouping == UsageGrouping::Hour { start.as_str() } else { &start[..10] };
            write!(out, "{text}\t")?;
        }
        if let Some(username) = &row.username {
            write!(out, "{}\t", username.escape_debug())?;
        }
        if matches!(grouping, UsageGrouping::All | UsageGrouping::Key) {
            write!(out, "{}\t", row.key_id.map_or_else(|| "-".to_owned(), |id| id.to_string()))?;
        }
        writeln!(out, "{}\t{}\t{}\t{}", row.requests, row.sentences, row.tokens, row.refused)?;
    }
    out.flush()?;
    Ok(())
}
