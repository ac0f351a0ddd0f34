//! Conformance tests of the API over both protocols, against a running stack; see README.md in this
//! folder.

mod case;
mod grpc;
mod protocol;

mod target;
mod wire;

use std::time::Duration;

use muse_tests::http_client::HttpResponse;

use case::Case;
use target::Target;

/// The results of the cases of a file.
#[derive(Debug, Default)]
struct Tally {
    passed: usize,
    left_out: usize,
    failures: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_cases_pass() {
    play("recorded", include_str!("recorded.json")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn own_cases_pass() {
    play("own", include_str!("own.json")).await;
}

async fn play(file: &str, cases: &str) {
    let cases: Vec<Case> = serde_json::from_str(cases).expect("the cases are well-formed");
    let mut target = Target::start().await;
    let mut tally = Tally::default();
    for case in &cases {
        match play_case(&mut target, case).await {
            None => tally.left_out += 1,
            Some(Ok(())) => tally.passed += 1,
            Some(Err(failure)) => {
                tally.failures.push(format!("{}: {} {}: {failure}", case.name, case.method, case.target));
            }
        }
    }
    target.stop().await;
    let Tally { passed, left_out, failures } = tally;
    println!("{file}: {passed} of {} cases pass, {left_out} left out", cases.len());
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
}

/// Returns None if the case needs a token that is not available.
async fn play_case(target: &mut Target, case: &Case) -> Option<Result<(), String>> {
    let path = target.fill(&case.target).await?;
    let mut headers = Vec::new();
    for (name, values) in &case.headers {
        for value in values.values() {
            headers.push((name.as_str(), target.fill(value).await?));
        }
    }
    let answer = answer(target, case, &path, &headers).await;
    if case.target.starts_with("/logout") {
        target.forget_pair();
    }
    Some(case.expect.check(&case.method, &answer))
}

/// Sends the request of a case, again after `Retry-After` if login throttling rejects it.
async fn answer(target: &Target, case: &Case, path: &str, headers: &[(&str, String)]) -> HttpResponse {
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let request = wire::request(&case.method, path, &headers, case.body.as_deref());
    loop {
        let answer = wire::send(target.address, &request).await;
        if answer.status.as_u16() != 429 || case.expect.is_status(429) {
            return answer;
        }
        let wait = answer.header("retry-after").parse().expect("429 has a Retry-After");
        tokio::time::sleep(Duration::from_secs(wait)).await;
    }
}
