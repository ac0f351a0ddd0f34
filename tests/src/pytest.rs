//! Runs tests that are written in Python.

use std::{
    io::{self, Write},
    path::Path,
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use crate::root;

/// Timeout of the tests.
const TIMEOUT: Duration = Duration::from_secs(900);

/// Runs pytest in the checkout with a Python interpreter and these environment variables, and prints
/// its output. The plugin `muse_report` reports the results to `tests/run.py`.
///
/// # Panics
///
/// If a test fails.
pub async fn pytest(python: &Path, tests: &[&str], environment: &[(&str, &str)]) {
    let mut running = Command::new(python)
        .args(["-m", "pytest", "--verbose", "--color=no", "-p", "no:cacheprovider", "-p", "muse_report"])
        .args(tests)
        .current_dir(root())
        .envs(environment.iter().copied())
        .env("PYTHONPATH", root().join("tests/python"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONUNBUFFERED", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("pytest starts");
    // Whole lines, because two suites may run concurrently.
    let mut lines = BufReader::new(running.stdout.take().expect("it is piped")).lines();
    let ended = async {
        while let Some(line) = lines.next_line().await.expect("pytest prints text") {
            writeln!(io::stdout(), "{line}").expect("the output is open");
        }
        running.wait().await.expect("pytest ends")
    };
    let status = tokio::time::timeout(TIMEOUT, ended).await.expect("they end in time");
    assert!(status.success(), "pytest ended with {status}");
}
