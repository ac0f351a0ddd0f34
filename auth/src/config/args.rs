//! The options of the program, as clap parses them.

use std::{net::SocketAddr, path::PathBuf};

use clap::builder::{BoolishValueParser, RangedI64ValueParser, RangedU64ValueParser};
use muse_server::{ShutdownArgs, TraceArgs, tls::PeerArgs};

use super::{DEFAULT_USAGE_RETENTION_DAYS, database::DatabaseArgs};
use crate::passwords::{self, Cost};

const A_CENTURY: u64 = 100 * 366 * 24 * 3600;

/// The options of the service and of its commands. They resolve to [`Config`](super::Config).
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(super) database: DatabaseArgs,
    #[command(flatten)]
    pub(super) service: ServiceArgs,
}

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Options of the service")]
pub(super) struct ServiceArgs {
    /// Address to listen on, for the other services of the stack. Users connect to the gateway.
    #[arg(long, env = "AUTH_LISTEN", default_value = "127.0.0.1:5001", global = true)]
    pub(super) listen: SocketAddr,
    /// Address of the admin port, for probes and Prometheus: /livez, /readyz and /metrics over
    /// plain HTTP.
    #[arg(long, env = "AUTH_PRIVATE_LISTEN", default_value = "127.0.0.1:5011", global = true)]
    pub(super) private_listen: SocketAddr,
    /// Users connect from other machines: reject short secrets, passwords that are easily guessed,
    /// and the password `admin` of the user `admin`. Always on unless --listen is a loopback
    /// address.
    #[arg(long, env = "AUTH_EXPOSED", value_parser = BoolishValueParser::new(), global = true)]
    pub(super) exposed: bool,
    /// File with the secret from which the signing keys are derived; alternatively the environment
    /// variable JWT_SECRET_KEY contains the secret itself. Without a secret the first start
    /// generates a key and stores it in the database.
    #[arg(long, env = "JWT_SECRET_KEY_FILE", global = true)]
    pub(super) jwt_secret_key_file: Option<PathBuf>,
    /// Validity of access tokens, in seconds.
    #[arg(long, env = "ACCESS_TOKEN_LIFETIME", default_value_t = 24 * 3600, global = true)]
    #[arg(value_parser = lifetime(), allow_negative_numbers = true)]
    pub(super) access_token_lifetime: u64,
    /// Validity of refresh tokens, in seconds.
    #[arg(long, env = "REFRESH_TOKEN_LIFETIME", default_value_t = 30 * 24 * 3600, global = true)]
    #[arg(value_parser = lifetime(), allow_negative_numbers = true)]
    pub(super) refresh_token_lifetime: u64,
    /// Return a new refresh token at each refresh and end the old one. If an ended refresh token is
    /// used again, all tokens of its login are revoked.
    #[arg(long, env = "ROTATE_REFRESH", value_parser = BoolishValueParser::new(), global = true)]
    pub(super) rotate_refresh: bool,
    /// Seconds for which an ended refresh token can still be used, in case the client did not
    /// receive the new one. Only with --rotate-refresh.
    #[arg(long, env = "REFRESH_GRACE", default_value_t = 10, global = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(..=3600))]
    pub(super) refresh_grace: u64,
    /// Days for which the usage per user and API key is stored, by days; by hours it is stored for 31
    /// days.
    #[arg(long, env = "USAGE_RETENTION_DAYS", default_value_t = DEFAULT_USAGE_RETENTION_DAYS, global = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(31..=36_600))]
    pub(super) usage_retention_days: u32,
    /// File with the password of the user `admin`, whom the first start creates; alternatively the
    /// environment variable ADMIN_PASSWORD contains the password itself. Later starts ignore it.
    /// Without it the password is `admin`, or, if users connect from other machines, a random one
    /// that is printed once.
    #[arg(long, env = "ADMIN_PASSWORD_FILE", global = true)]
    pub(super) admin_password_file: Option<PathBuf>,
    /// Memory for hashing one password with argon2id, in KiB.
    #[arg(long, env = "ARGON2_MEMORY_KIB", default_value_t = Cost::default().memory_kib(), global = true)]
    pub(super) argon2_memory_kib: u32,
    /// Passes of argon2id over that memory.
    #[arg(long, env = "ARGON2_PASSES", default_value_t = Cost::default().passes(), global = true)]
    pub(super) argon2_passes: u32,
    /// Threads that hash passwords. Further logins wait in a bounded queue, and are rejected when
    /// it is full.
    #[arg(long, env = "HASH_THREADS", default_value_t = default_hash_threads(), global = true)]
    #[arg(value_parser = hash_threads())]
    pub(super) hash_threads: u16,
    #[command(flatten)]
    pub(super) shutdown: ShutdownArgs,
    #[command(flatten)]
    pub(super) peers: PeerArgs,
    #[command(flatten)]
    pub(super) traces: TraceArgs,
}

fn lifetime() -> RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=A_CENTURY)
}

fn hash_threads() -> RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..=256)
}

fn default_hash_threads() -> u16 {
    u16::try_from(passwords::default_threads()).unwrap_or(1)
}
