//! Where users, keys and revocations are kept.

use std::{env, fmt, path::PathBuf, str::FromStr};

use clap::Args;
use muse_server::ConfigError;
use sea_orm::sqlx::postgres::PgConnectOptions;
use secrecy::{ExposeSecret, SecretString};

use super::bad;

const VARIABLE: &str = "DATABASE_URL";

/// Where users, keys and revocations are kept.
#[derive(Debug, Clone, Args)]
pub struct DatabaseArgs {
    /// Where users, keys and revocations are kept: the path of a SQLite file, `sqlite://PATH`, or
    /// `postgres://USER:PASSWORD@HOST/DATABASE`. A password is accepted from the environment only, since everyone on
    /// this machine can see the arguments of a program.
    #[arg(
        long,
        env = VARIABLE,
        default_value = "sqlite://muse.db",
        hide_env_values = true,
        global = true
    )]
    pub database: SecretString,
}

/// A database.
#[derive(Debug, Clone)]
pub enum Database {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A Postgres server, as a URL, which may hold a password.
    Postgres(SecretString),
}

/// Without user and password.
impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(url) => match PgConnectOptions::from_str(url.expose_secret()) {
                Ok(options) => {
                    let (host, port) = (options.get_host(), options.get_port());
                    write!(f, "postgres://{host}:{port}/{}", options.get_database().unwrap_or_default())
                }
                Err(_) => f.write_str("postgres://"),
            },
        }
    }
}

impl DatabaseArgs {
    /// The database that the option names.
    ///
    /// # Errors
    ///
    /// If it names none. The text does not repeat the option, which may hold a password.
    pub fn database(&self) -> Result<Database, ConfigError> {
        let from_environment = env::var(VARIABLE).is_ok_and(|value| value == self.database.expose_secret());
        read(self.database.expose_secret(), from_environment)
    }
}

fn read(text: &str, from_environment: bool) -> Result<Database, ConfigError> {
    const OPTION: &str = "--database";
    if text.starts_with("postgres:") || text.starts_with("postgresql:") {
        let bad_url = |problem: &str| {
            bad(OPTION, format!("{problem}; it looks like postgres://USER:PASSWORD@HOST/DATABASE"))
        };
        let options =
            PgConnectOptions::from_str(text).map_err(|_| bad_url("not a URL of a Postgres database"))?;
        if options.get_database().is_none_or(str::is_empty) {
            return Err(bad_url("it names no database"));
        }
        // The part before the host is all that can hold one, apart from a parameter.
        let has_password = text.contains("password=")
            || text
                .split_once("://")
                .and_then(|(_, rest)| rest.split_once('@'))
                .is_some_and(|(user, _)| user.contains(':'));
        if has_password && !from_environment {
            return Err(bad(
                OPTION,
                format!("a password on the command line can be seen by everyone: use {VARIABLE}"),
            ));
        }
        return Ok(Database::Postgres(SecretString::from(text)));
    }
    let path = match text.strip_prefix("sqlite:") {
        Some(rest) => {
            let rest = rest.strip_prefix("//").unwrap_or(rest);
            rest.strip_suffix("?mode=rwc").unwrap_or(rest)
        }
        None if text.contains("://") => {
            return Err(bad(OPTION, "only paths, sqlite:// and postgres:// URLs are supported"));
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
    Ok(Database::Sqlite(PathBuf::from(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlite_database_is_a_path_or_a_url() {
        for (text, expected) in [
            ("sqlite://muse.db", "muse.db"),
            ("sqlite:muse.db", "muse.db"),
            ("sqlite:///var/lib/muse/muse.db", "/var/lib/muse/muse.db"),
            ("sqlite:///a.db?mode=rwc", "/a.db"),
            ("dir/muse.db", "dir/muse.db"),
            ("/a what?.db", "/a what?.db"),
        ] {
            assert_eq!(read(text, false).unwrap().to_string(), expected, "{text}");
        }
        for text in
            ["", "sqlite:", "sqlite://", "sqlite::memory:", ":memory:", "mysql://u:pw@h/d", "sqlite://a?b=c"]
        {
            assert!(read(text, true).is_err(), "{text}");
        }
    }

    #[test]
    fn a_postgres_database_is_a_url_that_names_one() {
        let shown = "postgres://db.example.org:5433/muse";
        let url = "postgres://maria:hunter2@db.example.org:5433/muse?sslmode=require";
        let database = read(url, true).unwrap();
        assert_eq!(database.to_string(), shown);
        assert!(!format!("{database:?}").contains("hunter2"));
        assert_eq!(
            read("postgresql://maria@localhost/muse", false).unwrap().to_string(),
            "postgres://localhost:5432/muse"
        );
        for text in [
            "postgres:",
            "postgres://u:hunter2@h:port/d",
            "postgres://u:hunter2@h",
            "postgres://u:hunter2@h/",
        ] {
            let refused = read(text, true).unwrap_err().to_string();
            assert!(refused.contains("--database") && !refused.contains("hunter2"), "{refused}");
        }
    }

    #[test]
    fn a_password_is_not_for_the_command_line() {
        for url in ["postgres://u:hunter2@h/d", "postgres://h/d?user=u&password=hunter2"] {
            assert!(read(url, true).is_ok());
            let refused = read(url, false).unwrap_err().to_string();
            assert!(refused.contains("DATABASE_URL") && !refused.contains("hunter2"), "{refused}");
        }
    }
}
