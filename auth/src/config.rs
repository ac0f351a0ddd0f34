//! The options of the service, and what they must be.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, builder::BoolishValueParser};
use secrecy::{ExposeSecret, SecretString};

use crate::passwords;

/// A shorter secret can be guessed, and is accepted only where nobody else can try.
const SHORTEST_SECRET: usize = 16;
const A_CENTURY: u64 = 100 * 366 * 24 * 3600;

/// Where users, keys and revocations are kept.
#[derive(Debug, Clone, Args)]
pub struct DatabaseArgs {
    /// Where users, keys and revocations are kept: the path of a SQLite file, or `sqlite://PATH`.
    #[arg(
        long,
        env = "DATABASE_URL",
        default_value = "sqlite://muse.db",
        hide_env_values = true,
        global = true
    )]
    pub database: String,
}

/// How the service runs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of the service")]
pub struct ServiceArgs {
    /// Where the service listens. It is meant for the other services of the stack, not for users.
    #[arg(long, env = "AUTH_LISTEN", default_value = "127.0.0.1:5001", global = true)]
    pub listen: SocketAddr,
    /// The secret from which the signing key is derived. Without it a key is made at the first start and kept in the
    /// database. Prefer the environment variable: everyone on this machine can see the arguments of a program.
    #[arg(long, env = "JWT_SECRET_KEY", hide_env_values = true, global = true)]
    pub jwt_secret_key: Option<SecretString>,
    /// How long an access token holds, in seconds.
    #[arg(long, env = "ACCESS_TOKEN_LIFETIME", default_value_t = 24 * 3600, global = true)]
    #[arg(value_parser = lifetime(), allow_negative_numbers = true)]
    pub access_token_lifetime: u64,
    /// How long a refresh token holds, in seconds.
    #[arg(long, env = "REFRESH_TOKEN_LIFETIME", default_value_t = 30 * 24 * 3600, global = true)]
    #[arg(value_parser = lifetime(), allow_negative_numbers = true)]
    pub refresh_token_lifetime: u64,
    /// The password of the user `admin`, who is made at the first start; at later starts it does nothing. Without it
    /// a random one is made and printed once. Prefer the environment variable.
    #[arg(long, env = "ADMIN_PASSWORD", hide_env_values = true, global = true)]
    pub admin_password: Option<SecretString>,
    /// Make the first user `admin` with the password `admin`. Refused unless the service listens on loopback.
    #[arg(long, env = "ALLOW_DEFAULT_ADMIN", value_parser = BoolishValueParser::new(), global = true)]
    pub default_admin: bool,
}

fn lifetime() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=A_CENTURY)
}

/// An option that is well formed but cannot be. The text names the option, and never its value where that is secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid value for '{option}': {problem}")]
pub struct BadOption {
    option: &'static str,
    problem: String,
}

fn bad(option: &'static str, problem: impl Into<String>) -> BadOption {
    BadOption { option, problem: problem.into() }
}

/// What the service needs to know. [`Config::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct Config {
    /// The SQLite file.
    pub database: PathBuf,
    /// What the signing key is derived from; `None` for a random one that is kept in the database.
    pub secret: Option<SecretString>,
    /// How long an access token holds.
    pub access_token_lifetime: Duration,
    /// How long a refresh token holds.
    pub refresh_token_lifetime: Duration,
    /// The first user's password.
    pub admin_password: Option<SecretString>,
    /// Whether the first user's password is `admin`, if `admin_password` does not say otherwise.
    pub default_admin: bool,
    /// Something is allowed here but unwise; said when the log is there.
    pub warnings: Vec<String>,
}

impl Config {
    /// The defaults, with the database in a file.
    pub fn new(database: impl Into<PathBuf>) -> Self {
        Self {
            database: database.into(),
            secret: None,
            access_token_lifetime: Duration::from_secs(24 * 3600),
            refresh_token_lifetime: Duration::from_secs(30 * 24 * 3600),
            admin_password: None,
            default_admin: false,
            warnings: Vec::new(),
        }
    }
}

impl DatabaseArgs {
    /// The path of the SQLite file.
    ///
    /// # Errors
    ///
    /// If the option names no such file. The text does not repeat the option, which may hold a password.
    pub fn path(&self) -> Result<PathBuf, BadOption> {
        const OPTION: &str = "--database";
        let text = self.database.as_str();
        if text.starts_with("postgres:") || text.starts_with("postgresql:") {
            return Err(bad(OPTION, "Postgres is not supported by this build yet"));
        }
        let path = match text.strip_prefix("sqlite:") {
            Some(rest) => {
                let rest = rest.strip_prefix("//").unwrap_or(rest);
                rest.strip_suffix("?mode=rwc").unwrap_or(rest)
            }
            None if text.contains("://") => {
                return Err(bad(OPTION, "only sqlite:// URLs and paths are supported"));
            }
            None => text,
        };
        if path.is_empty() {
            return Err(bad(OPTION, "no path is given"));
        }
        if path == ":memory:" {
            return Err(bad(OPTION, "a database in memory would forget everything; give a path"));
        }
        if path.contains('?') && text != path {
            return Err(bad(OPTION, "parameters after '?' are not supported"));
        }
        if path.contains('\0') {
            return Err(bad(OPTION, "a path cannot hold a NUL"));
        }
        Ok(PathBuf::from(path))
    }
}

impl ServiceArgs {
    /// Checks the options that depend on each other.
    ///
    /// # Errors
    ///
    /// Names the first option that cannot be.
    pub fn config(self, database: &DatabaseArgs) -> Result<Config, BadOption> {
        let mut warnings = Vec::new();
        let reachable_from_outside = !is_loopback(self.listen.ip());
        if let Some(secret) = &self.jwt_secret_key {
            const OPTION: &str = "--jwt-secret-key";
            let length = secret.expose_secret().len();
            if length == 0 {
                return Err(bad(OPTION, "it is empty"));
            }
            if length < SHORTEST_SECRET {
                let problem =
                    format!("it is shorter than {SHORTEST_SECRET} bytes, so tokens could be forged");
                if reachable_from_outside {
                    return Err(bad(OPTION, problem));
                }
                warnings.push(format!("{OPTION}: {problem}; accepted since the service listens on loopback"));
            }
        }
        if let Some(password) = &self.admin_password {
            passwords::check_new(password.expose_secret())
                .map_err(|refused| bad("--admin-password", refused.to_string()))?;
        }
        if self.default_admin && reachable_from_outside {
            return Err(bad(
                "--default-admin",
                "everyone knows that password, and --listen is not on loopback",
            ));
        }
        Ok(Config {
            database: database.path()?,
            secret: self.jwt_secret_key,
            access_token_lifetime: Duration::from_secs(self.access_token_lifetime),
            refresh_token_lifetime: Duration::from_secs(self.refresh_token_lifetime),
            admin_password: self.admin_password,
            default_admin: self.default_admin,
            warnings,
        })
    }
}

fn is_loopback(address: IpAddr) -> bool {
    let mapped: Option<Ipv4Addr> = match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => address.to_ipv4_mapped(),
    };
    mapped.map_or_else(|| address.is_loopback(), |mapped| mapped.is_loopback())
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
    fn a_database_is_a_path_or_a_url() {
        let path = |text: &str| DatabaseArgs { database: text.to_owned() }.path();
        for (text, expected) in [
            ("sqlite://muse.db", "muse.db"),
            ("sqlite:muse.db", "muse.db"),
            ("sqlite:///var/lib/muse/muse.db", "/var/lib/muse/muse.db"),
            ("sqlite:///a.db?mode=rwc", "/a.db"),
            ("dir/muse.db", "dir/muse.db"),
            ("/a what?.db", "/a what?.db"),
        ] {
            assert_eq!(path(text), Ok(PathBuf::from(expected)), "{text}");
        }
        for text in
            ["", "sqlite:", "sqlite://", "sqlite::memory:", ":memory:", "mysql://u:pw@h/d", "sqlite://a?b=c"]
        {
            assert!(path(text).is_err(), "{text}");
        }
        let postgres = path("postgres://user:hunter2@host/muse").unwrap_err().to_string();
        assert!(postgres.contains("--database") && postgres.contains("not supported"), "{postgres}");
        assert!(!postgres.contains("hunter2"), "{postgres}");
    }

    #[test]
    fn a_short_secret_is_for_loopback_only() {
        assert!(config(&["--jwt-secret-key", ""]).is_err());
        let short = config(&["--jwt-secret-key", "hunter2"]).unwrap();
        assert_eq!(short.warnings.len(), 1);
        let refused = config(&["--jwt-secret-key", "hunter2", "--listen", "0.0.0.0:5001"]).unwrap_err();
        assert!(refused.contains("--jwt-secret-key") && !refused.contains("hunter2"), "{refused}");
        let long = config(&["--jwt-secret-key", "0123456789abcdef", "--listen", "0.0.0.0:5001"]).unwrap();
        assert!(long.warnings.is_empty());
    }

    #[test]
    fn the_default_admin_is_for_loopback_only() {
        for listen in ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(config(&["--default-admin", "--listen", listen]).unwrap().default_admin, "{listen}");
        }
        for listen in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            assert!(
                config(&["--default-admin", "--listen", listen]).unwrap_err().contains("--default-admin")
            );
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
    fn the_admin_password_must_be_one() {
        assert!(config(&["--admin-password", ""]).unwrap_err().contains("--admin-password"));
        assert!(config(&["--admin-password", &"x".repeat(1025)]).is_err());
        assert!(config(&["--admin-password", "x"]).is_ok());
    }

    #[test]
    fn secrets_are_not_in_debug_output() {
        let config = config(&["--jwt-secret-key", "hunter2", "--admin-password", "hunter3"]).unwrap();
        assert!(!format!("{config:?}").contains("hunter"));
    }
}
