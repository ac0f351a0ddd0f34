//! The last released client of the original service works unmodified.

use std::time::Duration;

use muse_tests::{Stack, TIMEOUT, model_dir, root};
use tokio::process::Command;

/// Runs the script with the first Python in PATH, in which `make test` has installed the
/// dependencies.
async fn run(stack: &Stack, what: &str) {
    let script = root().join("tests/released_client/day.py");
    let port = stack.gateway.address.port().to_string();
    let mut command = Command::new("python3");
    command.arg(script).args([&port, what]).kill_on_drop(true);
    let output =
        tokio::time::timeout(TIMEOUT, command.output()).await.expect("it ends").expect("python3 starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("No module named"), "`make test` installs the dependencies:\n{stderr}");
    assert!(output.status.success(), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn released_client_logs_in_embeds_and_logs_out() {
    let stack = Stack::start().await;
    run(&stack, "day").await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn released_client_refreshes_an_expired_token() {
    let short = Duration::from_secs(2);
    let stack = Stack::start_with(&model_dir(), |auth| auth.access_token_lifetime = short).await;
    run(&stack, "expiry").await;
    stack.stop().await;
}
