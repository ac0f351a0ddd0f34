//! The options of the service, and what they must be.

mod database;
mod secrets;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, builder::BoolishValueParser};
use muse_server::{
    Addresses, ConfigError, ShutdownArgs, TraceArgs, is_loopback,
    tls::{ClientTls, PeerArgs, ServerTls},
};
use secrecy::{ExposeSecret, SecretString};

use crate::passwords::{self, Cost};

pub use database::{Database, DatabaseArgs};

/// A shorter secret can be guessed, and is accepted only where nobody else can try.
const SHORTEST_SECRET: usize = 16;
const A_CENTURY: u64 = 100 * 366 * 24 * 3600;

/// How the service runs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of the service")]
pub struct ServiceArgs {
    /// Where the service listens. It is meant for the other services of the stack, not for users.
    #[arg(long, env = "AUTH_LISTEN", default_value = "127.0.0.1:5001", global = true)]
    pub listen: SocketAddr,
    /// Address of the private port, for probes and Prometheus: /livez, /readyz and /metrics over plain HTTP.
    #[arg(long, env = "AUTH_PRIVATE_LISTEN", default_value = "127.0.0.1:5011", global = true)]
    pub private_listen: SocketAddr,
    /// Users come from other machines: refuses short secrets, passwords that are easily guessed, and to make the
    /// user `admin` with the password `admin`. Always so unless --listen is a loopback address.
    #[arg(long, env = "AUTH_EXPOSED", value_parser = BoolishValueParser::new(), global = true)]
    pub exposed: bool,
    /// File with the secret from which the signing key is derived; the environment variable JWT_SECRET_KEY can hold
    /// the secret itself. Without one a key is made at the first start and kept in the database.
    #[arg(long, env = "JWT_SECRET_KEY_FILE", global = true)]
    pub jwt_secret_key_file: Option<PathBuf>,
    /// How long an access token holds, in seconds.
    #[arg(long, env = "ACCESS_TOKEN_LIFETIME", default_value_t = 24 * 3600, global = true)]
    #[arg(value_parser = lifetime(), allow_negative_numbers = true)]
    pub access_token_lifetime: u64,
    /// How long a refresh token holds, in seconds.
    #[arg(long, env = "REFRESH_TOKEN_LIFETIME", default_value_t = 30 * 24 * 3600, global = true)]
    #[arg(value_parser = lifetime(), allow_negative_numbers = true)]
    pub refresh_token_lifetime: u64,
    /// Give a new refresh token at each refresh, and end the old one. Who uses an old one again ends the new ones.
    #[arg(long, env = "ROTATE_REFRESH", value_parser = BoolishValueParser::new(), global = true)]
    pub rotate_refresh: bool,
    /// For how many seconds a refresh token that was exchanged may be used once more, where they rotate: a client may
    /// not have heard the answer.
    #[arg(long, env = "REFRESH_GRACE", default_value_t = 10, global = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(..=3600))]
    pub refresh_grace: u64,
    /// File with the password of the user `admin`, who is made at the first start; the environment variable
    /// ADMIN_PASSWORD can hold the password itself. At later starts it does nothing. Without one the password is
    /// `admin`, or where users come from other machines a random one that is printed once.
    #[arg(long, env = "ADMIN_PASSWORD_FILE", global = true)]
    pub admin_password_file: Option<PathBuf>,
    /// KiB of memory that hashing a password takes (argon2id).
    #[arg(long, env = "ARGON2_MEMORY_KIB", default_value_t = Cost::default().memory_kib(), global = true)]
    pub argon2_memory_kib: u32,
    /// Passes over that memory.
    #[arg(long, env = "ARGON2_PASSES", default_value_t = Cost::default().passes(), global = true)]
    pub argon2_passes: u32,
    /// Passwords that are hashed at a time; the others wait, and when too many do they are turned away.
    #[arg(long, env = "HASH_THREADS", default_value_t = passwords::default_threads() as u64, global = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=256))]
    pub hash_threads: u64,
    /// How it ends.
    #[command(flatten)]
    pub shutdown: ShutdownArgs,
    /// How the others connect.
    #[command(flatten)]
    pub peers: PeerArgs,
    /// Where traces go.
    #[command(flatten)]
    pub traces: TraceArgs,
}

fn lifetime() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=A_CENTURY)
}

fn bad(option: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError::new(option, problem)
}

/// What the service needs to know. [`Config::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where everything is kept.
    pub database: Database,
    /// Users come from other machines.
    pub exposed: bool,
    /// What the signing keys are derived from; `None` for random ones that are kept in the database.
    pub secret: Option<SecretString>,
    /// How long an access token holds.
    pub access_token_lifetime: Duration,
    /// How long a refresh token holds.
    pub refresh_token_lifetime: Duration,
    /// Whether a refresh token is good for one refresh.
    pub rotate_refresh: bool,
    /// How long an exchanged refresh token may be used once more.
    pub refresh_grace: Duration,
    /// The first user's password.
    pub admin_password: Option<SecretString>,
    /// What hashing a password costs.
    pub cost: Cost,
    /// Passwords that are hashed at a time.
    pub hash_threads: usize,
    /// How the service ends.
    pub shutdown: ShutdownArgs,
    /// How the other services connect; `None` for plain text.
    pub tls: Option<ServerTls>,
    /// How the service connects to a collector of traces with TLS.
    pub collector_tls: Option<ClientTls>,
    /// Where traces go, and which.
    pub traces: TraceArgs,
    /// Something is allowed here but unwise; said when the log is there.
    pub warnings: Vec<String>,
}

impl Config {
    /// The defaults of a service on a loopback address, with the database in a file.
    pub fn new(database: impl Into<PathBuf>) -> Self {
        Self {
            database: Database::Sqlite(database.into()),
            exposed: false,
            secret: None,
            access_token_lifetime: Duration::from_secs(24 * 3600),
            refresh_token_lifetime: Duration::from_secs(30 * 24 * 3600),
            rotate_refresh: false,
            refresh_grace: Duration::from_secs(10),
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

    /// Seconds that a token of this service holds at most.
    pub(crate) fn longest_lifetime(&self) -> i64 {
        let longest = self.access_token_lifetime.max(self.refresh_token_lifetime);
        i64::try_from(longest.as_secs()).unwrap_or(i64::MAX)
    }
}

impl ServiceArgs {
    /// Where the service listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        Addresses { public: self.listen, private: self.private_listen }
    }

    /// Reads the secrets and checks the options that depend on each other.
    ///
    /// # Errors
    ///
    /// Names the first option that cannot be.
    pub fn config(self, database: &DatabaseArgs) -> Result<Config, ConfigError> {
        let secret =
            secrets::read("JWT_SECRET_KEY", "--jwt-secret-key-file", self.jwt_secret_key_file.as_deref())?;
        let admin_password =
            secrets::read("ADMIN_PASSWORD", "--admin-password-file", self.admin_password_file.as_deref())?;
        let exposed = self.exposed || !is_loopback(self.listen.ip());
        let warnings = secret.as_ref().map(|secret| check_secret(secret, exposed)).transpose()?.flatten();
        if let Some(password) = &admin_password {
            passwords::check_new("admin", password.expose_secret(), exposed)
                .map_err(|refused| bad("ADMIN_PASSWORD", refused.to_string()))?;
        }
        let cost = Cost::new(self.argon2_memory_kib, self.argon2_passes)
            .map_err(|problem| bad("--argon2-memory-kib, --argon2-passes", problem))?;
        let collector_tls = self.peers.client([])?;
        self.traces.check(collector_tls.is_some())?;
        Ok(Config {
            database: database.database()?,
            exposed,
            secret,
            access_token_lifetime: Duration::from_secs(self.access_token_lifetime),
            refresh_token_lifetime: Duration::from_secs(self.refresh_token_lifetime),
            rotate_refresh: self.rotate_refresh,
            refresh_grace: Duration::from_secs(self.refresh_grace),
            admin_password,
            cost,
            hash_threads: usize::try_from(self.hash_threads).unwrap_or(1),
            shutdown: self.shutdown,
            tls: self.peers.server(self.listen)?,
            collector_tls,
            traces: self.traces,
            warnings: warnings.into_iter().collect(),
        })
    }
}

/// Refuses a secret, or warns of it.
fn check_secret(secret: &SecretString, exposed: bool) -> Result<Option<String>, ConfigError> {
    const OPTION: &str = "JWT_SECRET_KEY";
    let length = secret.expose_secret().len();
    if length == 0 {
        return Err(bad(OPTION, "it is empty"));
    }
    if length >= SHORTEST_SECRET {
        return Ok(None);
    }
    let problem = format!("it is shorter than {SHORTEST_SECRET} bytes, so tokens could be forged");
    if exposed {
        return Err(bad(OPTION, problem));
    }
    Ok(Some(format!("{OPTION}: {problem}; accepted since users come from this machine alone")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Options {
        #[command(flatten)]
        database: DatabaseArgs,
        #[command(flatten)]
        service: ServiceArgs,
    }

    fn config(arguments: &[&str]) -> Result<Config, String> {
        let arguments = [&["muse-auth"], arguments].concat();
        let options = Options::try_parse_from(arguments).map_err(|refused| refused.to_string())?;
        options.service.config(&options.database).map_err(|refused| refused.to_string())
    }

    #[test]
    fn a_short_secret_is_for_loopback_only() {
        let check = |secret: &str, exposed| check_secret(&SecretString::from(secret), exposed);
        assert!(check("", false).is_err());
        assert!(check("hunter2", false).unwrap().is_some());
        let refused = check("hunter2", true).unwrap_err().to_string();
        assert!(refused.contains("JWT_SECRET_KEY") && !refused.contains("hunter2"), "{refused}");
        assert_eq!(check("0123456789abcdef", true), Ok(None));
    }

    #[test]
    fn who_listens_elsewhere_than_on_loopback_is_exposed() {
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
    fn lifetimes_are_at_least_a_second() {
        for option in ["--access-token-lifetime", "--refresh-token-lifetime"] {
            for value in ["0", "-1", "1.5", "x", "99999999999999"] {
                assert!(config(&[option, value]).unwrap_err().contains(option), "{option} {value}");
            }
            assert!(config(&[option, "1"]).is_ok());
        }
    }

    #[test]
    fn a_hash_costs_at_least_what_owasp_recommends() {
        for options in [["--argon2-memory-kib", "19455"], ["--argon2-passes", "1"]] {
            assert!(config(&options).unwrap_err().contains(options[0]), "{options:?}");
        }
        assert!(config(&["--argon2-memory-kib", "65536", "--argon2-passes", "3"]).is_ok());
        assert!(config(&["--hash-threads", "0"]).unwrap_err().contains("--hash-threads"));
    }

    #[test]
    fn secrets_come_from_files_and_are_not_in_debug_output() {
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
