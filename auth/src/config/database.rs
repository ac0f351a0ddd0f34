//! The option that names the database of users, keys and revocations.

use std::{env, fmt, path::PathBuf, str::FromStr};

use muse_server::ConfigError;
use sea_orm::sqlx::postgres::PgConnectOptions;
use secrecy::{ExposeSecret, SecretString};

const VARIABLE: &str = "DATABASE_URL";

#[derive(Debug, Clone, clap::Args)]
pub(super) struct DatabaseArgs {
    /// Database of users, keys and revocations: the path of a SQLite file, `sqlite://PATH`, or
    /// `postgres://USER:PASSWORD@HOST/DATABASE`. In a URL, `@ : / ? # %` in user and password must
    /// be percent-encoded (`%40`); the environment variable PGPASSWORD takes a password as it is. A
    /// password is accepted in environment variables only, because all users of this machine can
    /// see the arguments of a program.
    #[arg(
        long,
        env = VARIABLE,
        default_value = "sqlite://muse.db",
        hide_env_values = true,
        global = true
    )]
    database: SecretString,
}

/// The database of users, keys and revocations.
#[derive(Debug, Clone)]
pub enum Database {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// The URL of a Postgres database, which may contain a password.
    Postgres(SecretString),
}

/// Prints neither user nor password.
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

/// The error does not repeat the option, which may contain a password.
impl TryFrom<DatabaseArgs> for Database {
    type Error = ConfigError;

    fn try_from(args: DatabaseArgs) -> Result<Self, ConfigError> {
        let text = args.database.expose_secret();
        parse(text, env::var(VARIABLE).is_ok_and(|value| value == text))
    }
}

fn parse(text: &str, from_environment: bool) -> Result<Database, ConfigError> {
    const OPTION: &str = "--database";
    if text.starts_with("postgres:") || text.starts_with("postgresql:") {
        let bad_url = |problem: &str| {
            ConfigError::new(OPTION, format!("{problem}; the form is postgres://USER:PASSWORD@HOST/DATABASE"))
        };
        if !text.contains("://") {
            return Err(bad_url("'//' is missing in the URL of the database"));
        }
        if has_unencoded_delimiter(text) {
            return Err(bad_url(
                "it contains '#', or an '@' after the host: percent-encode '@ : / ? # %' in user and password (%40), \
                 or set the password in PGPASSWORD",
            ));
        }
        let options =
            PgConnectOptions::from_str(text).map_err(|_| bad_url("not a URL of a Postgres database"))?;
        if options.get_database().is_none_or(str::is_empty) {
            return Err(bad_url("it contains no name of a database"));
        }
        // Only the part before the host and a parameter can contain a password.
        let has_password = text.contains("password=")
            || text
                .split_once("://")
                .and_then(|(_, rest)| rest.split_once('@'))
                .is_some_and(|(user, _)| user.contains(':'));
        if has_password && !from_environment {
            return Err(ConfigError::new(
                OPTION,
                format!("all users of this machine can see a password on the command line: use {VARIABLE}"),
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
            return Err(ConfigError::new(OPTION, "only paths, sqlite:// and postgres:// URLs are supported"));
        }
        None => text,
    };
    if path.is_empty() {
        return Err(ConfigError::new(OPTION, "the path is missing"));
    }
    if path == ":memory:" {
        return Err(ConfigError::new(OPTION, "a database in memory is lost at the end; use a path"));
    }
    if path.contains('?') && text != path {
        return Err(ConfigError::new(OPTION, "parameters after '?' are not supported"));
    }
    if path.contains('\0') {
        return Err(ConfigError::new(OPTION, "a path cannot contain a NUL"));
    }
    Ok(Database::Sqlite(PathBuf::from(path)))
}

/// Whether a part of the URL before the host is taken for the host or for what follows it, because
/// the password contains `/`, `?` or `#`. Then the URL may still be well-formed.
fn has_unencoded_delimiter(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else { return false };
    let after_host = rest.find(['/', '?', '#']).map_or("", |end| &rest[end..]);
    rest.contains('#') || after_host.contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_path_and_url_are_accepted() {
        for (text, expected) in [
            ("sqlite://muse.db", "muse.db"),
            ("sqlite:muse.db", "muse.db"),
            ("sqlite:///var/lib/muse/muse.db", "/var/lib/muse/muse.db"),
            ("sqlite:///a.db?mode=rwc", "/a.db"),
            ("dir/muse.db", "dir/muse.db"),
            ("/a what?.db", "/a what?.db"),
        ] {
            assert_eq!(parse(text, false).unwrap().to_string(), expected, "{text}");
        }
        for text in
            ["", "sqlite:", "sqlite://", "sqlite::memory:", ":memory:", "mysql://u:pw@h/d", "sqlite://a?b=c"]
        {
            assert!(parse(text, true).is_err(), "{text}");
        }
    }

    #[test]
    fn postgres_url_without_a_database_is_rejected() {
        let shown = "postgres://db.example.org:5433/muse";
        let url = "postgres://maria:hunter2@db.example.org:5433/muse?sslmode=require";
        let database = parse(url, true).unwrap();
        assert_eq!(database.to_string(), shown);
        assert!(!format!("{database:?}").contains("hunter2"));
        assert_eq!(
            parse("postgresql://maria@localhost/muse", false).unwrap().to_string(),
            "postgres://localhost:5432/muse"
        );
        for text in [
            "postgres:",
            "postgres:u:hunter2@h/d",
            "postgresql:/u:hunter2@h/d",
            "postgres://u:hunter2@h:port/d",
            "postgres://u:hunter2@h",
            "postgres://u:hunter2@h/",
        ] {
            let error = parse(text, true).unwrap_err().to_string();
            assert!(error.contains("--database") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn delimiters_in_a_database_password_are_rejected() {
        for password in ["p@hunter2/w#rd%", "1/hunter2?", "1?hunter2/", "hunter2#", "1#hunter2", "a@hunter2/"]
        {
            let error =
                parse(&format!("postgres://muse:{password}@postgres/muse"), true).unwrap_err().to_string();
            assert!(error.contains("PGPASSWORD") && !error.contains("hunter2"), "{error}");
        }
        for password in ["p%40ss%2Fw%23rd%25", "p@ss:word", "100%"] {
            let database = parse(&format!("postgres://muse:{password}@postgres/muse"), true).unwrap();
            assert_eq!(database.to_string(), "postgres://postgres:5432/muse");
        }
    }

    #[test]
    fn database_password_on_the_command_line_is_rejected() {
        for url in ["postgres://u:hunter2@h/d", "postgres://h/d?user=u&password=hunter2"] {
            assert!(parse(url, true).is_ok());
            let error = parse(url, false).unwrap_err().to_string();
            assert!(error.contains("DATABASE_URL") && !error.contains("hunter2"), "{error}");
        }
    }
}
