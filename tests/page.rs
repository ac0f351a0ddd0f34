//! The tests of the web page, in a browser.

use std::path::Path;

use muse_tests::{Stack, pytest::pytest};

/// The tests that open every view in several sizes and colours; all others take about as long.
const VIEWS: [&str; 2] = ["tests/python/page/test_accessibility.py", "tests/python/page/test_appearance.py"];

#[tokio::test(flavor = "multi_thread")]
async fn views_are_accessible_and_fit_every_width() {
    run(&VIEWS.map(str::to_owned)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn page_works_as_a_user_expects() {
    let others = VIEWS.map(|path| format!("--ignore={path}"));
    run(&["tests/python/page".to_owned()].into_iter().chain(others).collect::<Vec<_>>()).await;
}

/// Runs these tests with stacks of their own.
async fn run(tests: &[String]) {
    let venv =
        std::env::var_os("PAGE_VENV").expect("PAGE_VENV names a Python environment: run `make test-page`");
    let (stack, strict) = (Stack::start().await, Stack::start_strict().await);
    let [url, strict_url] = [&stack, &strict].map(|stack| format!("http://{}", stack.gateway.address));
    let environment = [("MUSE_TEST_URL", &*url), ("MUSE_TEST_STRICT_URL", &*strict_url)];
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    pytest(&Path::new(&venv).join("bin/python"), &tests, &environment).await;
    stack.stop().await;
    strict.stop().await;
}
