//! Runs the tests of the Python client with the installed wheel (`make client`) against real
//! stacks.

use std::time::Duration;

use muse_auth::RefreshRotation;
use muse_tests::{
    Stack, auth_config, channel, model_dir, pytest::pytest, root, start_auth, start_embedder, start_gateway,
    wait_until_serving,
};

/// The tests of the command, which take as long as all other tests of the client together.
const COMMAND: &str = "client/tests/test_command.py";

async fn run(tests: &[&str]) {
    let python = root().join("target/client/bin/python");
    assert!(python.exists(), "the client is not installed: run `make client`");
    let (stack, strict) = (Stack::start().await, strict_stack().await);
    let [url, strict_url] = [&stack, &strict].map(|stack| format!("http://{}", stack.gateway.address));
    pytest(&python, tests, &[("MUSE_TEST_URL", &url), ("MUSE_TEST_STRICT_URL", &strict_url)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn installed_command_passes_its_tests() {
    run(&[COMMAND]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn installed_package_passes_its_tests() {
    run(&["client/tests", &format!("--ignore={COMMAND}")]).await;
}

/// A stack with access tokens that are valid for 2 s, rotating refresh tokens, and a short queue.
async fn strict_stack() -> Stack {
    let data = tempfile::tempdir().expect("there is a place for temporary files");
    let mut config = auth_config(data.path());
    config.access_token_lifetime = Duration::from_secs(2);
    config.refresh_rotation = Some(RefreshRotation { grace: Duration::from_secs(1) });
    let auth = start_auth(config).await;
    let embedder = start_embedder(&model_dir(), auth.address, &["--queue-tokens", "4000"]).await;
    let gateway = start_gateway(auth.address, embedder.address, &[]).await;
    wait_until_serving(channel(gateway.address)).await;
    Stack { data, auth, embedder, gateway }
}
