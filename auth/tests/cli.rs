//! The program as an operator uses it.

#![expect(clippy::unwrap_used, reason = "a test helper that fails fails its test")]

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use tempfile::{TempDir, tempdir};

const OPTIONS: [&str; 8] = [
    "DATABASE_URL",
    "AUTH_LISTEN",
    "JWT_SECRET_KEY",
    "ACCESS_TOKEN_LIFETIME",
    "REFRESH_TOKEN_LIFETIME",
    "ADMIN_PASSWORD",
    "ALLOW_DEFAULT_ADMIN",
    "LOG_LEVEL",
];

fn program(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muse-auth"));
    for option in OPTIONS {
        command.env_remove(option);
    }
    command.current_dir(folder).args(arguments).stdin(Stdio::null());
    command
}

fn run(folder: &TempDir, arguments: &[&str], input: &str) -> Output {
    let mut command = program(folder.path(), arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may end without reading.
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
    assert_eq!(status(&run(&folder, &["user", "add", "bob"], "secret\n")), 0);
    assert_eq!(status(&run(&folder, &["user", "add", "ann"], "secret")), 0);
    assert_eq!(names(&folder), ["ann", "bob"]);
    assert!(folder.path().join("muse.db").is_file(), "the default is in the working folder");

    let again = run(&folder, &["user", "add", "bob"], "other\n");
    assert_eq!((status(&again), stderr(&again).trim()), (1, "error: there is a user \"bob\" already"));

    assert_eq!(status(&run(&folder, &["user", "passwd", "bob"], "new\n")), 0);
    assert_eq!(status(&run(&folder, &["user", "remove", "bob"], "")), 0);
    assert_eq!(names(&folder), ["ann"]);
    for command in ["passwd", "remove"] {
        let unknown = run(&folder, &["user", command, "bob"], "x\n");
        assert_eq!((status(&unknown), stderr(&unknown).trim()), (1, "error: there is no user \"bob\""));
    }
}

#[test]
fn bad_names_and_passwords_are_refused() {
    let folder = tempdir().unwrap();
    for name in ["", " ann", "ann ", "a\nb", &"x".repeat(65)] {
        let refused = run(&folder, &["user", "add", name], "secret\n");
        assert!(
            status(&refused) == 1 && stderr(&refused).contains("not a name"),
            "{name:?} {}",
            stderr(&refused)
        );
    }
    for password in ["", "\n", &"x".repeat(1025), &"x".repeat(100_000)] {
        let refused = run(&folder, &["user", "add", "ann"], password);
        assert_eq!(status(&refused), 1, "{}", stderr(&refused));
        assert!(stderr(&refused).contains("1 to 1024 bytes"), "{}", stderr(&refused));
    }
    assert!(names(&folder).is_empty());
}

#[test]
fn a_list_has_a_name_and_a_time() {
    let folder = tempdir().unwrap();
    run(&folder, &["user", "add", "ann"], "secret\n");
    let listed = String::from_utf8(run(&folder, &["user", "list"], "").stdout).unwrap();
    let (name, time) = listed.trim_end().split_once('\t').unwrap();
    assert_eq!(name, "ann");
    assert!(time.len() == 20 && time.starts_with("20") && time.ends_with('Z'), "{time}");
}

#[test]
fn bad_options_end_with_64_and_are_named() {
    let folder = tempdir().unwrap();
    for (arguments, named) in [
        (vec!["--listen", "nowhere"], "--listen"),
        (vec!["--access-token-lifetime", "0"], "--access-token-lifetime"),
        (vec!["--refresh-token-lifetime", "x"], "--refresh-token-lifetime"),
        (vec!["--jwt-secret-key", ""], "--jwt-secret-key"),
        (vec!["--jwt-secret-key", "short", "--listen", "0.0.0.0:0"], "--jwt-secret-key"),
        (vec!["--default-admin", "--listen", "0.0.0.0:0"], "--default-admin"),
        (vec!["--admin-password", ""], "--admin-password"),
        (vec!["--database", "postgres://u:hunter2@h/d"], "--database"),
        (vec!["user", "list", "--database", "postgres://u:hunter2@h/d"], "--database"),
        (vec!["--log-level", "a=b=c"], "--log-level"),
        (vec!["--no-such-option"], "--no-such-option"),
        (vec!["no-such-command"], "no-such-command"),
        (vec!["user", "add"], "NAME"),
        (vec!["user"], "Usage"),
    ] {
        let refused = run(&folder, &arguments, "");
        assert_eq!(status(&refused), 64, "{arguments:?} {}", stderr(&refused));
        assert!(stderr(&refused).contains(named), "{arguments:?} {}", stderr(&refused));
        assert!(!stderr(&refused).contains("hunter2"), "{}", stderr(&refused));
    }
    assert!(!folder.path().join("muse.db").exists());
}

#[test]
fn options_come_from_the_environment_too() {
    let folder = tempdir().unwrap();
    for (name, value) in [
        ("AUTH_LISTEN", "x"),
        ("JWT_SECRET_KEY", ""),
        ("ACCESS_TOKEN_LIFETIME", "0"),
        ("REFRESH_TOKEN_LIFETIME", "0"),
        ("ADMIN_PASSWORD", ""),
        ("ALLOW_DEFAULT_ADMIN", "perhaps"),
        ("DATABASE_URL", "mysql://h/d"),
    ] {
        let refused = program(folder.path(), &["serve"]).env(name, value).output().unwrap();
        assert_eq!(status(&refused), 64, "{name} {}", stderr(&refused));
    }
}

#[test]
fn help_and_version_are_answers_not_errors() {
    let folder = tempdir().unwrap();
    let help = program(folder.path(), &["--help"]).env("JWT_SECRET_KEY", "hunter2").output().unwrap();
    assert_eq!(status(&help), 0);
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(text.contains("JWT_SECRET_KEY") && !text.contains("hunter2"), "{text}");
    assert_eq!(status(&run(&folder, &["--version"], "")), 0);
}

#[test]
fn a_database_that_cannot_be_opened_ends_the_program() {
    let folder = tempdir().unwrap();
    for arguments in
        [vec!["--listen", "127.0.0.1:0", "--database", "."], vec!["user", "list", "--database", "."]]
    {
        let refused = run(&folder, &arguments, "");
        assert_eq!(status(&refused), 1);
        assert!(stderr(&refused).contains("cannot open the database ."), "{}", stderr(&refused));
    }
}

/// A service that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_first_start_prints_a_password_once_and_users_can_be_managed_meanwhile() {
    let folder = tempdir().unwrap();
    for start in 1..=2 {
        let mut command = program(folder.path(), &["serve", "--listen", "127.0.0.1:0"]);
        let mut service = Running(command.stderr(Stdio::piped()).spawn().unwrap());
        let mut said = String::new();
        for line in BufReader::new(service.0.stderr.take().unwrap()).lines() {
            let line = line.unwrap();
            said.push_str(&line);
            if line.contains("the signing key is there") {
                break;
            }
        }
        assert_eq!(said.contains("The first user is \"admin\", the password "), start == 1, "{said}");
        let name = format!("user{start}");
        assert_eq!(status(&run(&folder, &["user", "add", &name], "secret\n")), 0);
        assert!(names(&folder).contains(&name));
        // As a power cut would.
        drop(service);
    }
    assert_eq!(names(&folder), ["admin", "user1", "user2"]);
}

#[test]
fn the_default_admin_can_come_from_the_environment() {
    let folder = tempdir().unwrap();
    let mut command = program(folder.path(), &["--listen", "127.0.0.1:0"]);
    let mut service =
        Running(command.env("ALLOW_DEFAULT_ADMIN", "1").stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(service.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let said: Vec<String> =
        lines.by_ref().take_while(|line| !line.contains("the signing key is there")).collect();
    assert!(said.iter().any(|line| line.contains("a password that everyone knows")), "{said:?}");
}
