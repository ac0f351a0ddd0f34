//! Tests that are written in Python.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::process::Command;

use crate::root;

/// Longer than they take.
const PATIENCE: Duration = Duration::from_secs(900);

/// Runs tests by an interpreter, with these environment variables, in the checkout, and prints what they say.
///
/// # Panics
///
/// If one of them fails.
pub async fn pytest(python: &Path, tests: &[&str], environment: &[(&str, &str)]) {
    let running = Command::new(python)
        .args(["-m", "pytest", "--color=no", "-p", "no:cacheprovider", "-rs"])
        .args(tests)
        .current_dir(root())
        .envs(environment.iter().copied())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended =
        tokio::time::timeout(PATIENCE, running).await.expect("they end in time").expect("pytest starts");
    println!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "pytest ended with {}", ended.status);
}
