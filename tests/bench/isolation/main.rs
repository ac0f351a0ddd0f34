//! `make drill`: cancels calls of every method at every stage, over every protocol, while a canary
//! measures the effects on another user.
//!
//! The programs run as separate processes. The exit status is 0 if all targets are met: no call of
//! the canary failed, its stream did not end, no connection between the services was closed, no
//! request remains in flight, and the memory was released. The report compares the latency of the
//! canary with its latency on the idle system: the attack, although of low priority, runs on the
//! same processors.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use muse_tests::isolation::{
    attack::{Combination, Outcome, Target},
    calls::Method,
    canary::{Canary, Record},
    stack::{Process, Settings, Stack},
};
use tokio::time::sleep;

/// Maximum growth of memory, as a fraction or in bytes; the larger applies.
const GROWTH: f64 = 0.10;
const GROWTH_BYTES: u64 = 8 << 20;
/// Time limit for the return of freed memory to the system.
const RETURNED_WITHIN: Duration = Duration::from_secs(30);
/// Time limit for the end of cancelled requests.
const SETTLE: Duration = Duration::from_secs(15);

/// Cancels calls of every method and reports the effects on another user.
#[derive(Debug, Parser)]
#[command(name = "muse-bench-isolation")]
struct Options {
    /// Calls of each method, divided among its combinations.
    #[arg(long, default_value_t = 100_000)]
    calls: usize,

    /// Folder of the programs.
    #[arg(long, default_value = "target/release")]
    programs: PathBuf,

    /// Methods to call, as in `Embed,/login`; all by default.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,

    /// Duration of the measurement of the idle system, in seconds.
    #[arg(long, default_value_t = 10)]
    idle_seconds: u64,

    /// Markdown file for the results.
    #[arg(long)]
    report: Option<PathBuf>,
}

/// The result of a combination, or the sum over a method.
#[derive(Debug, Default)]
struct Row {
    outcome: Outcome,
    canary: Record,
    reconnects: usize,
}

impl Row {
    fn add(&mut self, other: Self) {
        self.outcome += other.outcome;
        self.canary.add(other.canary);
        self.reconnects += other.reconnects;
    }

    /// The columns of the table without the names.
    fn columns(&self, idle: &Record) -> [String; 9] {
        let Self { outcome, canary, reconnects } = self;
        let ratio = canary.latency(0.99) / idle.latency(0.99);
        [
            outcome.calls.to_string(),
            format!("{}/{}/{}", outcome.cancelled, outcome.ended, outcome.late),
            outcome.closed.values().sum::<usize>().to_string(),
            format!("{:.0}", outcome.calls as f64 / outcome.duration.as_secs_f64()),
            canary.latencies.len().to_string(),
            (canary.failures.len() + canary.login_failures.len()).to_string(),
            canary.stream_breaks.len().to_string(),
            reconnects.to_string(),
            format!("{:.1} / {:.1} ({ratio:.1})", canary.latency(0.5), canary.latency(0.99)),
        ]
    }
}

const COLUMNS: &str = "calls | cancelled/ended/late | attacker's connections closed | calls/s | canary calls | \
                       canary failures | stream ended | reconnects | canary p50 / p99 ms (p99 over idle)";

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let settings = Settings { programs: Some(options.programs.clone()), ..Settings::default() };
    let mut stack = Stack::start(&settings).await;
    let mut target = Target::new(&stack).await;
    let canary = Canary::start(&stack).await;
    // Warm-up of caches and connections.
    sleep(Duration::from_secs(3)).await;
    let _ = canary.take();
    let mut connections = stack.upstream_connections();
    sleep(Duration::from_secs(options.idle_seconds)).await;
    let idle = canary.take();
    // Includes the canary's stream; the margin allows for its other calls.
    let in_flight: Vec<f64> = stack.in_flight().await.iter().map(|count| count + 2.0).collect();
    let memory: Vec<u64> = stack.processes().map(Process::resident).collect();
    println!("idle: p50 {:.1} ms, p99 {:.1} ms", idle.latency(0.5), idle.latency(0.99));

    let mut missed = Vec::new();
    if !idle.failed().is_empty() {
        missed.push(format!("the idle system fails: {:?}", idle.failed()));
    }
    let mut table = format!("| method | {COLUMNS} |\n|---|{}\n", "---|".repeat(9));
    let (mut reasons, mut causes) = (BTreeMap::new(), BTreeMap::new());
    let started = Instant::now();
    let mut total = Row::default();
    println!("method | protocol | stage | connections | token | {COLUMNS}");
    for method in Method::ALL {
        if !options.only.is_empty() && !options.only.contains(&method.to_string()) {
            continue;
        }
        let mut sum = Row::default();
        let combinations = Combination::of(method);
        let share = options.calls.div_ceil(combinations.len());
        for combination in combinations {
            if method == Method::RevokeToken && combination.token {
                target.renew().await;
            }
            let outcome = target.attack(combination, share).await;
            // So that the canary makes some calls during each combination.
            sleep(Duration::from_millis(200).saturating_sub(outcome.duration)).await;
            let reconnects = connections.difference(&stack.upstream_connections()).count();
            if reconnects > 0 {
                // Observe the replacements from now on. Only connections of the previous set count,
                // because connections for a single stream end with it.
                sleep(Duration::from_secs(1)).await;
                connections = stack.upstream_connections();
            }
            let row = Row { reconnects, outcome, canary: canary.take() };
            let Combination { protocol, stage, connections, token, .. } = combination;
            let token = if token { "yes" } else { "no" };
            println!(
                "{method} | {protocol} | {stage} | {connections} | {token} | {}",
                row.columns(&idle).join(" | ")
            );
            for (failure, count) in row.canary.failed() {
                *causes.entry(failure.to_owned()).or_insert(0) += count;
            }
            for (reason, count) in &row.outcome.closed {
                *reasons.entry(reason.clone()).or_insert(0) += count;
            }
            sum.add(row);
        }
        if let Err(left) = stack.settle(&in_flight, SETTLE).await {
            missed
                .push(format!("{method}: requests in flight stay at {left:?}; idle, at most {in_flight:?}"));
        }
        let _ = writeln!(table, "| {method} | {} |", sum.columns(&idle).join(" | "));
        total.add(sum);
        stack.assert_running();
    }
    let _ = writeln!(table, "| all | {} |", total.columns(&idle).join(" | "));

    sleep(RETURNED_WITHIN).await;
    let mut memory_table = String::from("| program | before, MiB | after, MiB |\n|---|---|---|\n");
    for (process, before) in stack.processes().zip(&memory) {
        let after = process.resident();
        let _ = writeln!(memory_table, "| {} | {} | {} |", process.name, before >> 20, after >> 20);
        if after > before + GROWTH_BYTES.max((*before as f64 * GROWTH) as u64) {
            missed.push(format!(
                "{}: {} MiB before, {} MiB afterwards",
                process.name,
                before >> 20,
                after >> 20
            ));
        }
    }
    let canary = &total.canary;
    for (count, what) in [
        (canary.failures.len(), "calls of the canary failed"),
        (canary.login_failures.len(), "logins of the canary failed"),
        (canary.stream_breaks.len(), "times the canary's stream ended"),
        (total.reconnects, "connections between services were closed"),
    ] {
        if count > 0 {
            missed.push(format!("{count} {what}"));
        }
    }
    if canary.latency(0.99) > 2.0 * idle.latency(0.99) {
        missed.push(format!(
            "p99 of the canary is {:.1} ms; idle, {:.1} ms",
            canary.latency(0.99),
            idle.latency(0.99)
        ));
    }
    let mut report = format!(
        "Idle: p50 {:.1} ms, p99 {:.1} ms. {} calls were cancelled in {:.0} s. Logins of the canary: {} served, {} \
         failed.\n\n{table}\n{memory_table}\n",
        idle.latency(0.5),
        idle.latency(0.99),
        total.outcome.calls,
        started.elapsed().as_secs_f64(),
        canary.logins,
        canary.login_failures.len(),
    );
    for (name, counts) in [("The canary's failures", causes), ("The attacker's connections", reasons)] {
        let _ = writeln!(report, "{name}:\n");
        for (reason, count) in counts {
            let _ = writeln!(report, "- {count} x {reason}");
        }
        report.push('\n');
    }
    let _ = writeln!(report, "Targets missed:\n");
    for line in &missed {
        let _ = writeln!(report, "- {line}");
    }
    println!("\n{report}");
    if let Some(path) = &options.report {
        fs::write(path, &report).expect("the report can be written");
    }
    let logs: Vec<String> =
        stack.processes().map(|process| format!("{}: {}", process.name, tail(&process.log()))).collect();
    println!("{}", logs.join("\n"));
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
