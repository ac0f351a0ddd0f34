//! The configuration of the service: [`Args`] are the options as clap parses them, [`Config`] is
//! what they resolve to, with files read and contradictions rejected.

mod args;
mod database;
mod secrets;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use muse_server::{
    Addresses, ConfigError, ShutdownArgs, TraceArgs, is_loopback,
    tls::{ClientTls, ServerTls},
};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    passwords::{self, Cost},
    usernames::ADMIN,
};

pub use args::Args;
pub use database::Database;

/// A shorter secret can be guessed, so it is accepted only where no other machine can try.
const MIN_SECRET_BYTES: usize = 16;
/// Two years.
const DEFAULT_USAGE_RETENTION_DAYS: u32 = 731;

/// The configuration of the service. [`Config::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the program listens.
    pub addresses: Addresses,
    /// Database of users, keys and revocations.
    pub database: Database,
    /// Whether users connect from other machines.
    pub exposed: bool,
    /// Secret from which the signing keys are derived; `None` for random keys, stored in the
    /// database.
    pub secret: Option<SecretString>,
    /// Validity of access tokens.
    pub access_token_lifetime: Duration,
    /// Validity of refresh tokens.
    pub refresh_token_lifetime: Duration,
    /// Rotation of refresh tokens; `None` if a refresh token can be used until it expires.
    pub refresh_rotation: Option<RefreshRotation>,
    /// Days for which usage is stored.
    pub usage_retention_days: u32,
    /// Password of the first user; `None` for the default or a random one.
    pub admin_password: Option<SecretString>,
    /// Cost of hashing a password.
    pub cost: Cost,
    /// Threads that hash passwords.
    pub hash_threads: usize,
    /// How the service shuts down.
    pub shutdown: ShutdownArgs,
    /// TLS of the other services' connections; `None` for plain text.
    pub tls: Option<ServerTls>,
    /// TLS of the connection to the collector of traces.
    pub collector_tls: Option<ClientTls>,
    /// Where traces are exported to, and which.
    pub traces: TraceArgs,
    /// Accepted but unwise settings, which the service logs when it starts.
    pub warnings: Vec<String>,
}

/// Each refresh returns a new refresh token and ends the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshRotation {
    /// How long an ended refresh token can still be used.
    pub grace: Duration,
}

impl Config {
    /// The defaults of a service on a loopback address, with a SQLite database.
    pub fn new(database: impl Into<PathBuf>) -> Self {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            addresses: Addresses { public: loopback(5001), admin: loopback(5011) },
            database: Database::Sqlite(database.into()),
            exposed: false,
            secret: None,
            access_token_lifetime: Duration::from_secs(24 * 3600),
            refresh_token_lifetime: Duration::from_secs(30 * 24 * 3600),
            refresh_rotation: None,
            usage_retention_days: DEFAULT_USAGE_RETENTION_DAYS,
            admin_password: None,
            cost: Cost::default(),
            hash_threads: passwords::default_threads(),
            shutdown: ShutdownArgs::default(),
            tls: None,
            collector_tls: None,
            traces: TraceArgs::default(),
            warnings: Vec::new(),
        }
    }

    /// The longest validity of a token, in seconds.
    pub(crate) fn max_token_lifetime(&self) -> i64 {
        let longest = self.access_token_lifetime.max(self.refresh_token_lifetime);
        i64::try_from(longest.as_secs()).unwrap_or(i64::MAX)
    }
}

/// Reads the secrets and checks the options that depend on each other.
///
/// # Errors
///
/// Names the first invalid option.
impl TryFrom<Args> for Config {
    type Error = ConfigError;

    fn try_from(Args { database, service: args }: Args) -> Result<Self, ConfigError> {
        let secret =
            secrets::read("JWT_SECRET_KEY", "--jwt-secret-key-file", args.jwt_secret_key_file.as_deref())?;
        let admin_password =
            secrets::read("ADMIN_PASSWORD", "--admin-password-file", args.admin_password_file.as_deref())?;
        let exposed = args.exposed || !is_loopback(args.listen.ip());
        let warning = secret.as_ref().map(|secret| check_secret(secret, exposed)).transpose()?.flatten();
        if let Some(password) = &admin_password {
            passwords::check_new(ADMIN, password.expose_secret(), exposed)
                .map_err(|problem| ConfigError::new("ADMIN_PASSWORD", problem.to_string()))?;
        }
        let cost = Cost::new(args.argon2_memory_kib, args.argon2_passes)
            .map_err(|problem| ConfigError::new("--argon2-memory-kib, --argon2-passes", problem))?;
        let collector_tls = args.peers.client([])?;
        args.traces.check(collector_tls.is_some())?;
        let rotation = RefreshRotation { grace: Duration::from_secs(args.refresh_grace) };
        Ok(Self {
            addresses: Addresses { public: args.listen, admin: args.private_listen },
            database: database.try_into()?,
            exposed,
            secret,
            access_token_lifetime: Duration::from_secs(args.access_token_lifetime),
            refresh_token_lifetime: Duration::from_secs(args.refresh_token_lifetime),
            refresh_rotation: args.rotate_refresh.then_some(rotation),
            usage_retention_days: args.usage_retention_days,
            admin_password,
            cost,
            hash_threads: usize::from(args.hash_threads),
            shutdown: args.shutdown,
            tls: args.peers.server(args.listen)?,
            collector_tls,
            traces: args.traces,
            warnings: warning.into_iter().collect(),
        })
    }
}

/// Rejects a secret that is too short, or returns a warning about it.
fn check_secret(secret: &SecretString, exposed: bool) -> Result<Option<String>, ConfigError> {
    const OPTION: &str = "JWT_SECRET_KEY";
    let length = secret.expose_secret().len();
    if length == 0 {
        return Err(ConfigError::new(OPTION, "it is empty"));
    }
    if length >= MIN_SECRET_BYTES {
        return Ok(None);
    }
    let problem = format!("it is shorter than {MIN_SECRET_BYTES} bytes, so tokens could be forged");
    if exposed {
        return Err(ConfigError::new(OPTION, problem));
    }
    Ok(Some(format!("{OPTION}: {problem}; accepted because users connect from this machine only")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: Args,
    }

    fn config(arguments: &[&str]) -> Result<Config, String> {
        let arguments = [&["muse-auth"], arguments].concat();
        let program = Program::try_parse_from(arguments).map_err(|error| error.to_string())?;
        Config::try_from(program.args).map_err(|error| error.to_string())
    }

    #[test]
    fn short_secret_is_accepted_on_loopback_only() {
        let check = |secret: &str, exposed| check_secret(&SecretString::from(secret), exposed);
        assert!(check("", false).is_err());
        assert!(check("hunter2", false).unwrap().is_some());
        let error = check("hunter2", true).unwrap_err().to_string();
        assert!(error.contains("JWT_SECRET_KEY") && !error.contains("hunter2"), "{error}");
        assert_eq!(check("0123456789abcdef", true), Ok(None));
    }

    #[test]
    fn service_beyond_loopback_is_exposed() {
        for listen in ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(!config(&["--listen", listen]).unwrap().exposed, "{listen}");
            assert!(config(&["--listen", listen, "--exposed"]).unwrap().exposed, "{listen}");
        }
        for listen in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            assert!(config(&["--listen", listen, "--plaintext"]).unwrap().exposed, "{listen}");
            assert!(config(&["--listen", listen]).unwrap_err().contains("MUSE_PLAINTEXT"), "{listen}");
        }
    }

    #[test]
    fn lifetime_below_a_second_is_rejected() {
        for option in ["--access-token-lifetime", "--refresh-token-lifetime"] {
            for value in ["0", "-1", "1.5", "x", "99999999999999"] {
                assert!(config(&[option, value]).unwrap_err().contains(option), "{option} {value}");
            }
            assert!(config(&[option, "1"]).is_ok());
        }
    }

    #[test]
    fn hash_cost_below_owasp_minimum_is_rejected() {
        for options in [["--argon2-memory-kib", "19455"], ["--argon2-passes", "1"]] {
            assert!(config(&options).unwrap_err().contains(options[0]), "{options:?}");
        }
        assert!(config(&["--argon2-memory-kib", "65536", "--argon2-passes", "3"]).is_ok());
        assert!(config(&["--hash-threads", "0"]).unwrap_err().contains("--hash-threads"));
    }

    #[test]
    fn secrets_are_read_from_files_and_not_debug_printed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "hunter2 hunter2\n").unwrap();
        let path = path.to_str().unwrap();
        let config = config(&["--jwt-secret-key-file", path, "--admin-password-file", path]).unwrap();
        assert_eq!(config.admin_password.as_ref().map(ExposeSecret::expose_secret), Some("hunter2 hunter2"));
        assert!(config.secret.is_some());
        assert!(!format!("{config:?}").contains("hunter"));
    }
}
