//! The commands and options of the program.

#![expect(clippy::unwrap_used, reason = "a test helper that fails fails its test")]

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use tempfile::{TempDir, tempdir};

/// The hash of "admin" by passlib.
const PBKDF2_OF_ADMIN: &str =
    "$pbkdf2-sha256$29000$hHAuJWQMgXDOuVdqTcl57w$s5kFi56lwZ315ldmwkcxBJ3MyQgb43KE/T5VVWhIWRY";

const OPTIONS: &[&str] = &[
    "DATABASE_URL",
    "AUTH_LISTEN",
    "JWT_SECRET_KEY",
    "JWT_SECRET_KEY_FILE",
    "ACCESS_TOKEN_LIFETIME",
    "REFRESH_TOKEN_LIFETIME",
    "ADMIN_PASSWORD",
    "ADMIN_PASSWORD_FILE",
    "AUTH_EXPOSED",
    "ROTATE_REFRESH",
    "LOG_LEVEL",
];

fn program(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muse-auth"));
    for option in OPTIONS {
        command.env_remove(option);
    }
    command.env("AUTH_PRIVATE_LISTEN", "127.0.0.1:0");
    command.current_dir(folder).args(arguments).stdin(Stdio::null());
    command
}

fn run(folder: &TempDir, arguments: &[&str], input: &str) -> Output {
    let mut command = program(folder.path(), arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The program may exit without reading.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn names(folder: &TempDir) -> Vec<String> {
    let listed = run(folder, &["user", "list"], "");
    assert_eq!(status(&listed), 0, "{}", stderr(&listed));
    let text = String::from_utf8(listed.stdout).unwrap();
    text.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

#[test]
fn users_are_added_changed_and_removed() {
    let folder = tempdir().unwrap();
    assert_eq!(status(&run(&folder, &["user", "add", "bob"], "correct horse\n")), 0);
    assert_eq!(status(&run(&folder, &["user", "add", "ann"], "correct horse")), 0);
    assert_eq!(names(&folder), ["ann", "bob"]);
    assert!(folder.path().join("muse.db").is_file(), "the default is in the working folder");

    let again = run(&folder, &["user", "add", "bob"], "another password\n");
    assert_eq!((status(&again), stderr(&again).trim()), (1, "error: there is a user \"bob\" already"));

    assert_eq!(status(&run(&folder, &["user", "passwd", "bob"], "a new password\n")), 0);
    assert_eq!(status(&run(&folder, &["user", "remove", "bob"], "")), 0);
    assert_eq!(names(&folder), ["ann"]);
    for command in ["passwd", "remove"] {
        let unknown = run(&folder, &["user", command, "bob"], "x\n");
        assert_eq!((status(&unknown), stderr(&unknown).trim()), (1, "error: there is no user \"bob\""));
    }
}

#[test]
fn api_keys_are_created_listed_and_revoked() {
    let folder = tempdir().unwrap();
    assert_eq!(status(&run(&folder, &["user", "add", "ann"], "correct horse\n")), 0);
    let printed = |arguments: &[&str]| {
        let output = run(&folder, arguments, "");
        assert_eq!(status(&output), 0, "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let key = printed(&["api-key", "create", "a job", "--user", "ann", "--expires-in", "60", "--bulk"]);
    let id = key.trim_end().strip_prefix("muse_").unwrap().split('_').next().unwrap();
    let listed = printed(&["api-key", "list", "--user", "ann"]);
    let fields: Vec<&str> = listed.trim_end().split('\t').collect();
    let [listed_id, owner, _, _, "-", "-", "a job", "bulk"] = fields[..] else { panic!("{fields:?}") };
    assert_eq!((listed_id, owner), (id, "ann"));
    assert!(!listed.contains(key.trim_end()), "it is printed once");

    printed(&["api-key", "revoke", id]);
    let again = run(&folder, &["api-key", "revoke", id], "");
    assert_eq!((status(&again), stderr(&again).trim()), (1, "error: there is no such API key"));
    printed(&["api-key", "create", "another", "--user", "ann"]);
    printed(&["user", "revoke", "ann"]);
    assert_eq!(printed(&["api-key", "list"]).lines().count(), 1, "keys are no tokens");
    printed(&["user", "revoke", "ann", "--delete-keys"]);
    assert_eq!(printed(&["api-key", "list"]), "");
    let unknown = run(&folder, &["api-key", "create", "x", "--user", "bob"], "");
    assert_eq!((status(&unknown), stderr(&unknown).trim()), (1, "error: there is no user \"bob\""));
}

#[test]
fn quotas_are_set_listed_and_removed() {
    let folder = tempdir().unwrap();
    assert_eq!(status(&run(&folder, &["user", "add", "ann"], "correct horse\n")), 0);
    let outcome = |arguments: &[&str]| {
        let output = run(&folder, arguments, "");
        let printed = String::from_utf8(output.stdout.clone()).unwrap() + &stderr(&output);
        (status(&output), printed.trim_end().to_owned())
    };
    let key = outcome(&["api-key", "create", "a", "--user", "ann"]).1;
    let id = key.split("muse_").nth(1).unwrap().split('_').next().unwrap();
    assert_eq!(
        outcome(&["user", "quota", "ann", "--tokens", "1000", "--per", "day"]),
        (0, "the quota of \"ann\" is 1000 per day".to_owned())
    );
    let of_key = outcome(&["api-key", "quota", id, "--tokens", "5", "--per", "month"]);
    assert_eq!(of_key, (0, format!("the quota of the API key {id} is 5 per month")));
    assert!(outcome(&["user", "list"]).1.ends_with("\t1000 per day"));
    assert!(outcome(&["api-key", "list"]).1.ends_with("\ta\t5 per month"));
    assert_eq!(outcome(&["user", "quota", "ann", "--none"]), (0, "the quota of \"ann\" is none".to_owned()));
    assert!(outcome(&["user", "list"]).1.ends_with("\tuser"));
    let limited = ["api-key", "create", "b", "--user", "ann", "--tokens", "7", "--per", "day"];
    let (created, key) = outcome(&limited);
    assert_eq!(created, 0);
    // Keys of the same second are listed in any order.
    let id = key.split("muse_").nth(1).unwrap().split('_').next().unwrap();
    let listed = outcome(&["api-key", "list"]).1;
    let line = listed.lines().find(|line| line.starts_with(id)).unwrap();
    assert!(line.ends_with("\tb\t7 per day"), "{line}");
    for invalid in [
        &["api-key", "create", "c", "--user", "ann", "--tokens", "7"][..],
        &["api-key", "create", "c", "--user", "ann", "--per", "day"],
        &["user", "quota", "ann"],
        &["user", "quota", "ann", "--tokens", "5"],
        &["user", "quota", "ann", "--per", "day"],
        &["user", "quota", "ann", "--tokens", "0", "--per", "day"],
        &["user", "quota", "ann", "--tokens", "5", "--per", "year"],
        &["user", "quota", "ann", "--none", "--tokens", "5", "--per", "day"],
    ] {
        assert_ne!(outcome(invalid).0, 0, "{invalid:?}");
    }
    assert_eq!(
        outcome(&["user", "quota", "bob", "--none"]),
        (1, "error: there is no user \"bob\"".to_owned())
    );
}

#[test]
fn usage_is_listed_by_period_user_and_key() {
    let folder = tempdir().unwrap();
    assert_eq!(status(&run(&folder, &["user", "add", "ann"], "correct horse\n")), 0);
    let outcome = |arguments: &[&str]| {
        let output = run(&folder, &[&["usage"], arguments].concat(), "");
        let printed = String::from_utf8(output.stdout.clone()).unwrap() + &stderr(&output);
        (status(&output), printed.trim_end().to_owned())
    };
    assert_eq!(outcome(&[]), (0, String::new()));
    // 20,000 days after 1970-01-01; the key of the id 1.
    execute_sql(
        &folder.path().join("muse.db"),
        &["INSERT INTO usage (span, start, username, key_id, requests, sentences, tokens, refused) VALUES \
           (86400, 1728000000, 'ann', 0, 1, 2, 3, 4), (86400, 1728000000, 'ann', 1, 5, 6, 7, 8)"],
    );
    let day = "2024-10-04";
    let listed = |arguments: &[&str]| {
        let (status, printed) = outcome(&[&["--from", day, "--to", day], arguments].concat());
        assert_eq!(status, 0, "{printed}");
        printed
    };
    let key = "aaaaaaaaaaab";
    let of_key = format!("{day}\tann\t{key}\t5\t6\t7\t8");
    assert_eq!(listed(&[]), format!("{day}\tann\t-\t1\t2\t3\t4\n{of_key}"));
    assert_eq!(listed(&["--key", key]), of_key);
    assert_eq!(listed(&["--key", "aaaaaaaaaaac"]), "");
    assert_eq!(listed(&["--by", "user", "--user", "ann"]), "ann\t6\t8\t10\t12");
    assert_eq!(listed(&["--by", "day"]), format!("{day}\t6\t8\t10\t12"));

    let error = |text: &str| (1, format!("error: {text}"));
    assert_eq!(outcome(&["--user", "bob"]), error("there is no user \"bob\""));
    assert_eq!(outcome(&["--key", "ann"]), error("there is no such API key"));
    assert_ne!(outcome(&["--by", "all"]).0, 0);
    assert_ne!(outcome(&["--from", "2026-02-30"]).0, 0);
    let reversed = outcome(&["--from", "2026-02-02", "--to", "2026-02-01"]);
    assert_eq!(reversed, error("from: the first day is after the last one"));
}

#[test]
fn invalid_names_and_passwords_are_rejected() {
    let folder = tempdir().unwrap();
    for name in ["", " ann", "ann ", "a\nb", &"x".repeat(65)] {
        let rejected = run(&folder, &["user", "add", name], "correct horse\n");
        assert!(
            status(&rejected) == 1 && stderr(&rejected).contains("not a name"),
            "{name:?} {}",
            stderr(&rejected)
        );
    }
    for password in ["", "\n", "1234567\n", &"x".repeat(1025), &"x".repeat(100_000)] {
        let rejected = run(&folder, &["user", "add", "ann"], password);
        assert_eq!(status(&rejected), 1, "{}", stderr(&rejected));
        assert!(stderr(&rejected).contains("8 to 1024 bytes"), "{}", stderr(&rejected));
    }
    assert!(names(&folder).is_empty());
}

#[test]
fn user_list_has_name_time_and_role() {
    let folder = tempdir().unwrap();
    run(&folder, &["user", "add", "ann"], "correct horse\n");
    let listed = String::from_utf8(run(&folder, &["user", "list"], "").stdout).unwrap();
    let fields: Vec<&str> = listed.trim_end().split('\t').collect();
    let [name, time, role] = fields[..] else { panic!("{listed}") };
    assert_eq!((name, role), ("ann", "user"));
    assert!(time.len() == 20 && time.starts_with("20") && time.ends_with('Z'), "{time}");
}

#[test]
fn invalid_option_is_named_and_exits_with_64() {
    let folder = tempdir().unwrap();
    for (arguments, named) in [
        (vec!["--listen", "nowhere"], "--listen"),
        (vec!["--access-token-lifetime", "0"], "--access-token-lifetime"),
        (vec!["--refresh-token-lifetime", "x"], "--refresh-token-lifetime"),
        (vec!["--jwt-secret-key", "hunter2"], "--jwt-secret-key"),
        (vec!["--jwt-secret-key-file", "none"], "--jwt-secret-key-file"),
        (vec!["--admin-password", "hunter2"], "--admin-password"),
        (vec!["--admin-password-file", "none"], "--admin-password-file"),
        (vec!["--argon2-passes", "1"], "--argon2-passes"),
        (vec!["--database", "postgres://u:hunter2@h/d"], "--database"),
        (vec!["user", "list", "--database", "postgres://u:hunter2@h/d"], "--database"),
        (vec!["--log-level", "a=b=c"], "--log-level"),
        (vec!["--no-such-option"], "--no-such-option"),
        (vec!["no-such-command"], "no-such-command"),
        (vec!["user", "add"], "NAME"),
        (vec!["user"], "Usage"),
    ] {
        let rejected = run(&folder, &arguments, "");
        assert_eq!(status(&rejected), 64, "{arguments:?} {}", stderr(&rejected));
        assert!(stderr(&rejected).contains(named), "{arguments:?} {}", stderr(&rejected));
        assert!(!stderr(&rejected).contains("hunter2"), "{}", stderr(&rejected));
    }
    assert!(!folder.path().join("muse.db").exists());
}

#[test]
fn invalid_variable_exits_with_64() {
    let folder = tempdir().unwrap();
    for (name, value) in [
        ("AUTH_LISTEN", "x"),
        ("AUTH_PRIVATE_LISTEN", "x"),
        ("JWT_SECRET_KEY", ""),
        ("ACCESS_TOKEN_LIFETIME", "0"),
        ("REFRESH_TOKEN_LIFETIME", "0"),
        ("ADMIN_PASSWORD", "hunter2"),
        ("AUTH_EXPOSED", "perhaps"),
        ("ROTATE_REFRESH", "perhaps"),
        ("HASH_THREADS", "0"),
        ("DATABASE_URL", "mysql://h/d"),
    ] {
        let rejected = program(folder.path(), &["serve"]).env(name, value).output().unwrap();
        assert_eq!(status(&rejected), 64, "{name} {}", stderr(&rejected));
        assert!(!stderr(&rejected).contains("hunter2"), "{}", stderr(&rejected));
    }
    for (name, value) in [("JWT_SECRET_KEY", "hunter2"), ("ADMIN_PASSWORD", "password1")] {
        let mut command = program(folder.path(), &["serve", "--listen", "0.0.0.0:0"]);
        let rejected = command.env(name, value).output().unwrap();
        assert_eq!(status(&rejected), 64, "{name} {}", stderr(&rejected));
        assert!(!stderr(&rejected).contains(value), "{}", stderr(&rejected));
    }
}

#[test]
fn help_and_version_exit_with_0() {
    let folder = tempdir().unwrap();
    let help = program(folder.path(), &["--help"]).env("JWT_SECRET_KEY", "hunter2").output().unwrap();
    assert_eq!(status(&help), 0);
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(text.contains("JWT_SECRET_KEY") && !text.contains("hunter2"), "{text}");
    assert_eq!(status(&run(&folder, &["--version"], "")), 0);
}

#[test]
fn database_that_cannot_be_opened_exits_with_1() {
    let folder = tempdir().unwrap();
    for arguments in
        [vec!["--listen", "127.0.0.1:0", "--database", "."], vec!["user", "list", "--database", "."]]
    {
        let rejected = run(&folder, &arguments, "");
        assert_eq!(status(&rejected), 1);
        assert!(stderr(&rejected).contains("cannot open the database ."), "{}", stderr(&rejected));
    }
}

#[test]
fn commands_do_not_create_a_mistyped_database() {
    let folder = tempdir().unwrap();
    for arguments in [
        &["user", "list"][..],
        &["user", "passwd", "ann"],
        &["user", "remove", "ann"],
        &["user", "disable", "ann"],
        &["user", "role", "ann", "admin"],
        &["user", "revoke", "ann"],
        &["key", "list"],
        &["key", "rotate"],
        &["backup", "copy.db"],
    ] {
        let rejected = run(&folder, &[arguments, &["--database", "typo.db"]].concat(), "correct horse\n");
        assert_eq!(status(&rejected), 1, "{arguments:?}");
        assert!(stderr(&rejected).contains("typo.db: there is no such file"), "{}", stderr(&rejected));
        assert!(!folder.path().join("typo.db").exists(), "{arguments:?}");
    }
}

#[test]
fn deceptive_names_are_rejected_and_escaped() {
    let folder = tempdir().unwrap();
    for name in ["ann\u{202e}", "ann\u{200b}", "\u{301}", "\u{430}nn", "Admin"] {
        let rejected = run(&folder, &["user", "add", name], "correct horse\n");
        assert!(status(&rejected) == 1 && stderr(&rejected).contains("not a name"), "{}", stderr(&rejected));
        assert!(!stderr(&rejected).contains(['\u{202e}', '\u{200b}']), "{}", stderr(&rejected));
    }
    assert!(names(&folder).is_empty());
}

/// A service that is killed when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn first_start_prints_the_password_once() {
    let folder = tempdir().unwrap();
    for start in 1..=2 {
        let mut command = program(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--exposed"]);
        let mut service = Running(command.stderr(Stdio::piped()).spawn().unwrap());
        let mut log = String::new();
        for line in BufReader::new(service.0.stderr.take().unwrap()).lines() {
            let line = line.unwrap();
            log.push_str(&line);
            if line.contains("loaded the signing key") {
                break;
            }
        }
        assert_eq!(log.contains("The first user is \"admin\", the password "), start == 1, "{log}");
        let name = format!("user{start}");
        assert_eq!(status(&run(&folder, &["user", "add", &name], "correct horse\n")), 0);
        assert!(names(&folder).contains(&name));
        // Killed, as by a power cut.
        drop(service);
    }
    assert_eq!(names(&folder), ["admin", "user1", "user2"]);
}

#[test]
fn users_are_disabled_enabled_and_given_roles() {
    let folder = tempdir().unwrap();
    run(&folder, &["user", "add", "ann", "--role", "admin"], "correct horse\n");
    let listed = || String::from_utf8(run(&folder, &["user", "list"], "").stdout).unwrap();
    for (arguments, expected) in [
        (vec!["user", "disable", "ann"], "admin\tdisabled"),
        (vec!["user", "enable", "ann"], "admin"),
        (vec!["user", "role", "ann", "user"], "user"),
        (vec!["user", "revoke", "ann"], "user"),
    ] {
        let done = run(&folder, &arguments, "");
        assert_eq!(status(&done), 0, "{}", stderr(&done));
        assert!(listed().trim_end().ends_with(&format!("Z\t{expected}")), "{}", listed());
    }
    assert_eq!(status(&run(&folder, &["user", "role", "ann", "root"], "")), 64);
}

#[test]
fn keys_are_listed_rotated_and_removed() {
    let folder = tempdir().unwrap();
    let none = run(&folder, &["key", "rotate"], "");
    assert_eq!(status(&none), 1, "no service has run yet: {}", stderr(&none));
    drop(start_first(&folder));
    let rotated = run(&folder, &["key", "rotate"], "");
    assert_eq!(status(&rotated), 0, "{}", stderr(&rotated));
    let listed = String::from_utf8(run(&folder, &["key", "list"], "").stdout).unwrap();
    let kids: Vec<&str> = listed.lines().map(|line| line.split('\t').next().unwrap()).collect();
    let [old, new] = kids[..] else { panic!("{listed}") };
    assert!(listed.lines().next().unwrap().ends_with("signs"), "the new one does not yet: {listed}");
    assert!(stderr(&rotated).contains(new), "{}", stderr(&rotated));
    let rejected = run(&folder, &["key", "remove", old], "");
    assert!(status(&rejected) == 1 && stderr(&rejected).contains("rotate first"), "{}", stderr(&rejected));
    assert_eq!(status(&run(&folder, &["key", "remove", new], "")), 0);
    for unknown in ["-VhT2", "-h-x", "--Ab", "x-h"] {
        let rejected = run(&folder, &["key", "remove", unknown], "");
        assert!(status(&rejected) == 1 && stderr(&rejected).contains(unknown), "{}", stderr(&rejected));
    }
}

#[test]
fn running_service_is_backed_up() {
    let folder = tempdir().unwrap();
    let service = start_first(&folder);
    run(&folder, &["user", "add", "ann"], "correct horse\n");
    let made = run(&folder, &["backup", "copy.db"], "");
    assert_eq!(status(&made), 0, "{}", stderr(&made));
    let copy = folder.path().join("copy.db");
    assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let again = run(&folder, &["backup", "copy.db"], "");
    assert!(status(&again) == 1 && stderr(&again).contains("File exists"), "{}", stderr(&again));
    assert_eq!(status(&run(&folder, &["backup", "no/such/folder"], "")), 1);
    drop(service);

    let listed = run(&folder, &["user", "list", "--database", "copy.db"], "");
    assert!(String::from_utf8(listed.stdout).unwrap().starts_with("admin\t"));
    let keys = |database: &str| run(&folder, &["key", "list", "--database", database], "").stdout;
    assert_eq!(keys("copy.db"), keys("muse.db"));
}

#[test]
fn users_of_the_replaced_service_are_imported_once() {
    let folder = tempdir().unwrap();
    let old = folder.path().join("app.db");
    old_database(&old);
    let first = run(&folder, &["import", "app.db"], "");
    assert_eq!(status(&first), 0, "{}", stderr(&first));
    assert_eq!(names(&folder), ["admin", "ann", "bob\\u{202e}"]);
    assert!(stderr(&first).contains("warning: \"bob\\u{202e}\""), "{}", stderr(&first));
    let before = std::fs::read(&old).unwrap();
    let second = run(&folder, &["import", "app.db"], "");
    assert_eq!(status(&second), 0, "{}", stderr(&second));
    assert!(stderr(&second).contains("skipped \"ann\""), "{}", stderr(&second));
    assert_eq!(std::fs::read(&old).unwrap(), before, "the old file is not changed");

    for other in ["none.db", ".", "muse.db"] {
        let rejected = run(&folder, &["import", other], "");
        assert!(
            status(&rejected) == 1 && stderr(&rejected).contains("cannot import"),
            "{other}: {}",
            stderr(&rejected)
        );
    }
}

/// A database of Flask-SQLAlchemy as in the old service, with hashes of passlib.
fn old_database(path: &Path) {
    let users = format!(
        "INSERT INTO users (username, password) VALUES ('admin', '{PBKDF2_OF_ADMIN}'), ('ann', '{PBKDF2_OF_ADMIN}'), \
         ('bob\u{202e}', '{PBKDF2_OF_ADMIN}')"
    );
    execute_sql(
        path,
        &[
            "CREATE TABLE users (id INTEGER NOT NULL, username VARCHAR(120) NOT NULL, \
             password VARCHAR(120) NOT NULL, PRIMARY KEY (id), UNIQUE (username))",
            "CREATE TABLE revoked_tokens (id INTEGER NOT NULL, jti VARCHAR(120), PRIMARY KEY (id))",
            "INSERT INTO revoked_tokens (jti) VALUES ('5ca97ea5-8d3e-4a4a-a1cf-a45dfd3b5b56')",
            &users,
        ],
    );
}

/// Executes statements in an SQLite database, which is created if it is missing.
fn execute_sql(path: &Path, statements: &[&str]) {
    use sea_orm::{ConnectionTrait, Database};
    let execute = async {
        let url = format!("sqlite://{}?mode=rwc", path.display());
        let database = Database::connect(url).await.unwrap();
        for statement in statements {
            database.execute_unprepared(statement).await.unwrap();
        }
        database.close().await.unwrap();
    };
    tokio::runtime::Runtime::new().unwrap().block_on(execute);
}

/// A service that has created its first user and key.
fn start_first(folder: &TempDir) -> Running {
    let mut command = program(folder.path(), &["--listen", "127.0.0.1:0"]);
    let mut service = Running(command.stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(service.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("loaded the signing key")));
    // Otherwise a full pipe would block its log.
    std::thread::spawn(move || lines.for_each(drop));
    service
}

#[test]
fn secrets_are_neither_in_arguments_nor_in_the_log() {
    let folder = tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), "hunter2 is my secret\n").unwrap();
    let arguments = ["--listen", "127.0.0.1:0", "--jwt-secret-key-file", "secret", "--log-level", "trace"];
    let mut command = program(folder.path(), &arguments);
    let mut service = Running(
        command.env("ADMIN_PASSWORD", "hunter3 is the password").stderr(Stdio::piped()).spawn().unwrap(),
    );
    let lines = BufReader::new(service.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut log = String::new();
    for line in lines {
        log.push_str(&line);
        if line.contains("loaded the signing key") {
            break;
        }
    }
    let shown = std::fs::read_to_string(format!("/proc/{}/cmdline", service.0.id())).unwrap();
    assert!(!log.contains("hunter") && !shown.contains("hunter"), "{shown} {log}");
}
