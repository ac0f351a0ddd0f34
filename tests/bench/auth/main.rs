//! The second part of `make bench`: measurements of the auth service.

mod login;
mod revocation;
mod verifier;

use std::{path::PathBuf, time::Duration};

use clap::Parser;

/// Measures revocation, logins and token verification.
#[derive(Debug, Parser)]
struct Options {
    /// Model directory of `muse-models convert`.
    model_dir: PathBuf,
}

#[tokio::main]
async fn main() {
    let options = Options::parse();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("auth, on {cores} cores");
    // First: later sections free memory that would be reused, which would reduce the growth
    // measured here.
    verifier::measure();
    revocation::measure(&options.model_dir).await;
    login::measure().await;
}

/// Prints the header of a table.
fn title(text: &str) {
    println!("\n{text:<46}{:>9}{:>10}{:>10}{:>10}{:>10}{:>10}", "n", "p5", "median", "p95", "p99", "max");
}

/// Prints a row of a table. Returns the median and the maximum.
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

/// Reads a field of `/proc/PID/status`, in KiB.
fn memory_kib(process: &str, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the process is there");
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.expect("/proc has the field in KiB")
}
