//! Property: the peak memory of a service is at most four times the request, plus the response and a fixed slack.

use std::{net::IpAddr, time::Duration};

use muse_tests::isolation::{
    attack::Target,
    stack::{Process, Settings, Stack},
};

use crate::{
    alone,
    shapes::{SHAPES, Shape},
};

/// The documented bound: bytes of memory for a byte of the request.
const FACTOR: u64 = 4;
/// What a service may take beyond that: buffers of connections, the workspace of a forward pass, the allocator's caches.
const SLACK: u64 = 48 << 20;
/// What a service may keep afterwards.
const KEPT: u64 = 48 << 20;
/// Sizes of the requests; the largest message is 16 MiB.
const SIZES: [usize; 3] = [1 << 20, 4 << 20, (16 << 20) - 64];
/// How long freed memory may take to be returned.
const RETURNED_WITHIN: Duration = Duration::from_secs(30);
const CALLER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 4));

/// Waits until a process is back near its idle memory; returns the last reading.
async fn settled(process: &Process, idle: u64, within: Duration) -> u64 {
    let end = tokio::time::Instant::now() + within;
    loop {
        let now = process.resident();
        if now <= idle + KEPT || tokio::time::Instant::now() > end {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The largest requests that are served, which bring caches and workspaces to their size.
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
    let _turn = alone().await;
    let mut stack = Stack::start(&Settings::default()).await;
    let target = Target::new(&stack).await;
    warm_up(&stack, target.token()).await;
    let mut idle: Vec<u64> = stack.processes().map(Process::resident).collect();
    println!("idle: {:?} MiB", idle.iter().map(|bytes| bytes >> 20).collect::<Vec<_>>());
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
                if peak > FACTOR * bytes + response + SLACK {
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
                let kept = settled(process, *idle, RETURNED_WITHIN).await;
                if kept > *idle + KEPT {
                    violations.push(format!(
                        "{name} to {path} of {} MiB: {} keeps {} MiB; idle, {} MiB",
                        mib(bytes),
                        process.name,
                        mib(kept),
                        mib(*idle)
                    ));
                    // Each is reported once.
                    *idle = kept;
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
