//! Property: the peak memory of a request is at most four times its size, plus the response and a
//! constant.

use std::{net::IpAddr, thread::available_parallelism, time::Duration};

use muse_tests::isolation::{
    attack::Target,
    stack::{Process, Settings, Stack},
};

use crate::{
    beside_others,
    random::SEED,
    shapes::{SHAPES, Shape},
};

/// The documented bound: bytes of memory per byte of the request.
const FACTOR: u64 = 4;
/// Allowance for the buffers of a connection.
const BUFFERS: u64 = 2 << 20;
/// Allowance of the embedder for the tokenization of the longest sentence, with spans.
const TOKENIZER: u64 = 96 << 20;
/// Allowance of the embedder for the workspace of a forward pass on each core, with a sentence of
/// 8,192 tokens.
const PASS: u64 = 60 << 20;
/// Size of a vector in a response.
const VECTOR_BYTES: u64 = 2 << 10;
/// Maximum growth of a service's memory after a request.
const MAX_RETAINED: u64 = 16 << 20;
/// Sizes of the requests; the largest message is 16 MiB.
const SIZES: [usize; 3] = [1 << 20, 4 << 20, (16 << 20) - 64];
/// Maximum time until freed memory is returned.
const RETURNED_WITHIN: Duration = Duration::from_secs(30);
const CALLER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 4));

/// The part of a service's memory that does not depend on the size of the request.
fn constant(process: &Process, response: u64) -> u64 {
    if process.name != "muse-embedder" {
        return BUFFERS;
    }
    let passes = if response < VECTOR_BYTES { 0 } else { available_parallelism().map_or(1, usize::from) };
    BUFFERS + TOKENIZER + PASS * passes as u64
}

/// Waits until a process is near its idle memory; returns the last reading.
async fn settled(process: &Process, idle: u64, within: Duration) -> u64 {
    let end = tokio::time::Instant::now() + within;
    loop {
        let now = process.resident();
        if now <= idle + MAX_RETAINED || tokio::time::Instant::now() > end {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Sends large requests, so that caches and workspaces reach their size.
async fn warm_up(stack: &Stack, token: &str) {
    for name in ["sentences of 4 KB", "long sentences"] {
        for shape in SHAPES.iter().filter(|shape| shape.name == name) {
            let call = shape.call(stack, token, 256 << 10);
            let _ = shape.send(stack, CALLER, &call).await;
        }
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn request_memory_is_at_most_four_times_its_size() {
    let _guard = beside_others().await;
    let mut stack = Stack::start(&Settings::default()).await;
    let target = Target::new(&stack).await;
    warm_up(&stack, target.token()).await;
    let mut idle: Vec<u64> = stack.processes().map(Process::resident).collect();
    println!("idle: {:?} MiB", idle.iter().map(|bytes| bytes >> 20).collect::<Vec<_>>());
    println!("ISOLATION_SEED={}", *SEED);
    println!(
        "| request | route | size, MiB | response, MiB | auth | embedder | gateway | largest peak over size |\n\
         |---|---|---|---|---|---|---|---|"
    );
    let (mut violations, mut failures) = (Vec::new(), Vec::new());
    for shape in SHAPES {
        for size in SIZES {
            let Shape { name, path, .. } = shape;
            let call = shape.call(&stack, target.token(), size);
            let bytes = call.body.len() as u64;
            for process in stack.processes() {
                process.reset_peak();
            }
            let before: Vec<u64> = stack.processes().map(Process::resident).collect();
            let response = shape.send(&stack, CALLER, &call).await;
            let peaks: Vec<u64> = stack
                .processes()
                .zip(&before)
                .map(|(process, before)| process.peak().saturating_sub(*before))
                .collect();
            let response = match response {
                Ok(response) => response as u64,
                Err(failure) => {
                    println!("{name} {path} {}: {failure}", size >> 20);
                    0
                }
            };
            let largest = *peaks.iter().max().expect("there are services");
            let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
            let columns: Vec<String> = peaks.iter().map(|&peak| mib(peak)).collect();
            let row = format!(
                "| {name} | {path} | {} | {} | {} | {:.1} |",
                mib(bytes),
                mib(response),
                columns.join(" | "),
                largest as f64 / bytes as f64
            );
            println!("{row}");
            for (process, &peak) in stack.processes().zip(&peaks) {
                if peak > FACTOR * bytes + response + constant(process, response) {
                    violations.push(format!(
                        "{name} to {path} of {} MiB with a response of {} MiB: {} took {} MiB",
                        mib(bytes),
                        mib(response),
                        process.name,
                        mib(peak)
                    ));
                }
            }
            for (process, idle) in stack.processes().zip(&mut idle) {
                let resident = settled(process, *idle, RETURNED_WITHIN).await;
                if resident > *idle + MAX_RETAINED {
                    violations.push(format!(
                        "{name} to {path} of {} MiB: {} retains {} MiB; idle: {} MiB",
                        mib(bytes),
                        process.name,
                        mib(resident),
                        mib(*idle)
                    ));
                    // Report each retention once.
                    *idle = resident;
                }
            }
            for violation in violations.drain(..) {
                println!("VIOLATION: {violation}");
                failures.push(violation);
            }
            stack.assert_running();
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    stack.stop().await;
}
