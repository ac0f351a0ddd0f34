//! The tests of the web page, in a browser.

use std::path::Path;

use muse_tests::{Stack, pytest::pytest, root};

#[tokio::test(flavor = "multi_thread")]
async fn page_passes_its_tests_in_a_browser() {
    let venv = std::env::var_os("PAGE_VENV").expect("PAGE_VENV names a Python environment: run `make test`");
    let (stack, strict) = (Stack::start().await, Stack::start_strict().await);
    let [url, strict_url] = [&stack, &strict].map(|stack| format!("http://{}", stack.gateway.address));
    let screenshots = root().join("target/screenshots");
    let environment = [
        ("MUSE_TEST_URL", &*url),
        ("MUSE_TEST_STRICT_URL", &*strict_url),
        ("MUSE_SCREENSHOTS", screenshots.to_str().expect("the path is UTF-8")),
    ];
    pytest(&Path::new(&venv).join("bin/python"), &["tests/python/page"], &environment).await;
    stack.stop().await;
    strict.stop().await;
}
