//! Process information from `/proc`.

use std::{fs, time::Duration};

/// Ticks per second in `/proc/PID/stat` (USER_HZ), which is 100 on Linux.
const TICKS: f64 = 100.0;

/// The running child processes of `parent`.
#[must_use]
pub fn children(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    let processes = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    processes
        .filter(|&process| {
            stat(&format!("/proc/{process}")).is_some_and(|fields| fields[1] == parent.to_string())
        })
        .collect()
}

/// The name of the program, truncated by the kernel to 15 bytes.
#[must_use]
pub fn name(process: u32) -> String {
    name_of(&format!("/proc/{process}"))
}

fn name_of(folder: &str) -> String {
    fs::read_to_string(format!("{folder}/comm")).unwrap_or_default().trim_end().to_owned()
}

/// The proportional set size (PSS) of a process in MB (10⁶ bytes).
///
/// # Panics
///
/// If the process does not run.
#[must_use]
pub fn pss_mb(process: u32) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).expect("the process runs");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("the kernel reports Pss");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("it is a number of KiB");
    kib * 1024.0 / 1e6
}

/// The largest resident set size of a process so far, in MB (10⁶ bytes); None if it has ended.
#[must_use]
pub fn peak_rss_mb(process: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

/// CPU time of a process.
///
/// # Panics
///
/// If the process does not run.
#[must_use]
pub fn cpu_time(process: u32) -> Duration {
    ticks(&format!("/proc/{process}")).expect("the process runs")
}

fn ticks(folder: &str) -> Option<Duration> {
    let fields = stat(folder)?;
    let ticks = |field: usize| fields[field].parse::<f64>().expect("the kernel reports ticks");
    // utime and stime, fields 14 and 15 of the whole line.
    Some(Duration::from_secs_f64((ticks(11) + ticks(12)) / TICKS))
}

/// CPU time of the threads of a process whose names have this prefix.
#[must_use]
pub fn cpu_time_of_threads(process: u32, prefix: &str) -> Duration {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return Duration::ZERO };
    let threads = threads.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    threads
        // Threads have the same files as processes.
        .filter(|thread| name_of(&format!("/proc/{process}/task/{thread}")).starts_with(prefix))
        .filter_map(|thread| ticks(&format!("/proc/{process}/task/{thread}")))
        .sum()
}

/// The fields of `/proc/PID/stat` after the name, which may contain any characters.
fn stat(folder: &str) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("{folder}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}
