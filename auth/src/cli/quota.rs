//! The options of a quota.

use clap::Args;
use muse_auth::{Quota, QuotaPeriod};

/// A limit, or none: `--tokens N --per day`.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct LimitArgs {
    /// Tokens within each period.
    #[arg(long, requires = "per", value_parser = clap::value_parser!(u64).range(1..=Quota::MAX_TOKENS))]
    tokens: Option<u64>,
    /// The period (UTC).
    #[arg(long, value_enum, requires = "tokens")]
    per: Option<QuotaPeriod>,
}

/// A new quota: `--tokens N --per day`, or `--none`.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct QuotaArgs {
    #[command(flatten)]
    limit: LimitArgs,
    /// Remove the quota.
    #[arg(long, required_unless_present = "tokens", conflicts_with = "tokens")]
    none: bool,
}

impl From<LimitArgs> for Quota {
    fn from(LimitArgs { tokens, per }: LimitArgs) -> Self {
        tokens.zip(per).map_or(Self::NONE, |(tokens, period)| Self { tokens, period })
    }
}

impl From<QuotaArgs> for Quota {
    fn from(args: QuotaArgs) -> Self {
        args.limit.into()
    }
}
