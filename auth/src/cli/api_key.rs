//! `muse-auth api-key …`.

use std::io::{self, Write};

use clap::Subcommand;
use muse_auth::{ApiKeyChange, ApiKeys, NewApiKey, Quota};
use secrecy::ExposeSecret;

use super::{
    CommandError,
    quota::{LimitArgs, QuotaArgs},
    report, utc,
};

/// Commands for API keys.
#[derive(Debug, Subcommand)]
pub(crate) enum ApiKeyCommand {
    /// Create a key and print it. It cannot be printed again: only its SHA-256 is stored.
    Create {
        /// The name of the key, for people.
        name: String,
        /// The user whom its calls count for.
        #[arg(long)]
        user: String,
        /// Seconds until the key expires; 0 for never.
        #[arg(long, default_value_t = 0)]
        expires_in: i64,
        /// Its calls are a bulk job.
        #[arg(long)]
        bulk: bool,
        #[command(flatten)]
        limit: LimitArgs,
    },
    /// Print the keys, one per line: the id, the owner, the time of creation and of expiry (UTC),
    /// the day and the network of the last use, the name, and, if so, `disabled`, `bulk` and the
    /// quota.
    List {
        /// Only the keys of this user.
        #[arg(long)]
        user: Option<String>,
    },
    /// Limit the tokens that may be embedded with a key within a day or a month.
    Quota {
        /// The id of the key.
        id: String,
        #[command(flatten)]
        quota: QuotaArgs,
    },
    /// Delete a key, which is rejected from then on.
    Revoke {
        /// The id of the key.
        id: String,
    },
}

pub(super) async fn execute(command: ApiKeyCommand, keys: &ApiKeys) -> Result<(), CommandError> {
    match command {
        ApiKeyCommand::Create { name, user, expires_in, bulk, limit } => {
            let new = NewApiKey { name: &name, owner: &user, expires_in, bulk, quota: limit.into() };
            let (key, secret) = keys.create(new).await?;
            report(format_args!("created the API key {} of {:?}", key.id, key.owner));
            let mut out = io::stdout().lock();
            writeln!(out, "{}", secret.expose_secret())?;
            out.flush()?;
        }
        ApiKeyCommand::List { user } => {
            let mut out = io::stdout().lock();
            for key in keys.list(user.as_deref()).await? {
                let time = |time: Option<i64>| time.map_or_else(|| "-".to_owned(), utc);
                let used = match key.last_used_day {
                    Some(day) => format!("{}\t{}", &utc(day)[..10], key.last_used_from.escape_debug()),
                    None => "-\t-".to_owned(),
                };
                let disabled = if key.disabled { "\tdisabled" } else { "" };
                let bulk = if key.bulk { "\tbulk" } else { "" };
                let quota = key.quota.map(|quota| format!("\t{quota}")).unwrap_or_default();
                writeln!(
                    out,
                    "{}\t{}\t{}\t{}\t{used}\t{}{disabled}{bulk}{quota}",
                    key.id,
                    key.owner.escape_debug(),
                    utc(key.created_at),
                    time(key.expires_at),
                    key.name.escape_debug(),
                )?;
            }
            out.flush()?;
        }
        ApiKeyCommand::Quota { id, quota } => {
            let change = ApiKeyChange { quota: Some(quota.into()), ..ApiKeyChange::default() };
            let key = keys.update(&id, change).await?;
            let quota = key.quota.unwrap_or(Quota::NONE);
            report(format_args!("the quota of the API key {} is {quota}", key.id));
        }
        ApiKeyCommand::Revoke { id } => {
            let key = keys.delete(&id).await?;
            report(format_args!("revoked the API key {} of {:?}", key.id, key.owner));
        }
    }
    Ok(())
}
