//! The Python client: its own tests, run with the wheel that `make client` built and installed, against real stacks.

use std::{process::Stdio, time::Duration};

use muse_tests::{
    Stack, auth_config, channel, model_dir, root, start_auth, start_embedder, start_gateway,
    wait_until_serving,
};
use tokio::process::Command;

/// Longer than its tests take.
const PATIENCE: Duration = Duration::from_secs(900);

#[tokio::test(flavor = "multi_thread")]
async fn the_wheel_passes_the_client_s_tests() {
    let python = root().join("target/client/bin/python");
    assert!(python.exists(), "the client is not installed: run `make client`");
    let stack = Stack::start().await;
    let strict = strict_stack().await;
    let tests = Command::new(python)
        .args(["-m", "pytest", "--color=no", "-p", "no:cacheprovider", "client/tests"])
        .current_dir(root())
        .env("MUSE_TEST_URL", format!("http://{}", stack.gateway.address))
        .env("MUSE_TEST_STRICT_URL", format!("http://{}", strict.gateway.address))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output =
        tokio::time::timeout(PATIENCE, tests).await.expect("they end in time").expect("pytest starts");
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "pytest ended with {}", output.status);
}

/// Access tokens expire while one looks on, refresh tokens are good for one refresh, and few tokens may wait.
async fn strict_stack() -> Stack {
    let data = tempfile::tempdir().expect("there is a place for temporary files");
    let mut config = auth_config(data.path());
    config.access_token_lifetime = Duration::from_secs(2);
    config.rotate_refresh = true;
    config.refresh_grace = Duration::from_secs(1);
    let auth = start_auth(config).await;
    let embedder = start_embedder(&model_dir(), auth.address, &["--queue-tokens", "4000"]).await;
    let gateway = start_gateway(auth.address, embedder.address, &[]).await;
    wait_until_serving(channel(gateway.address)).await;
    Stack { data, auth, embedder, gateway }
}
