//! `make bench`, the second part: what the auth service promises, in figures.

mod login;
mod revocation;
mod verifier;

use std::{path::PathBuf, time::Duration};

use clap::Parser;

/// Measures revocation, logins and the check of a token.
#[derive(Debug, Parser)]
struct Options {
    /// Directory made by `muse-models convert`.
    model_dir: PathBuf,
}

#[tokio::main]
async fn main() {
    let options = Options::parse();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("auth, on {cores} cores");
    // First, while little memory has been freed that it could take again.
    verifier::measure();
    revocation::measure(&options.model_dir).await;
    login::measure().await;
}

/// Begins a table.
fn title(text: &str) {
    println!("\n{text:<46}{:>9}{:>10}{:>10}{:>10}{:>10}{:>10}", "n", "p5", "median", "p95", "p99", "worst");
}

/// A line of a table. Returns the median and the worst.
fn row(name: &str, mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent).div_ceil(100).saturating_sub(1)];
    print!("  {name:<44}{:>9}", times.len());
    for percent in [5, 50, 95, 99, 100] {
        print!("{:>10}", format!("{:.1?}", at(percent)));
    }
    println!();
    (at(50), at(100))
}

/// KiB that `/proc` tells of a process, under this name.
fn memory_kib(process: &str, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the process is there");
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.expect("/proc tells it in KiB")
}
