//! What Linux tells of processes.

use std::{fs, time::Duration};

/// Ticks of a second in `/proc/PID/stat`: USER_HZ, which is 100 on every Linux that this runs on.
const TICKS: f64 = 100.0;

/// The processes that `parent` has started and that still run.
#[must_use]
pub fn children(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    let processes = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    processes.filter(|&process| stat(process).is_some_and(|fields| fields[1] == parent.to_string())).collect()
}

/// The program's name, cut by the kernel to 15 bytes.
#[must_use]
pub fn name(process: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// MB (10⁶ bytes) of memory that the process takes: its own, and its part of what it shares with others.
///
/// # Panics
///
/// If it does not run.
#[must_use]
pub fn pss_mb(process: u32) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).expect("the process runs");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("the kernel tells Pss");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("it is a number of KiB");
    kib * 1024.0 / 1e6
}

/// Time that the process has spent on processors so far.
///
/// # Panics
///
/// If it does not run.
#[must_use]
pub fn cpu_time(process: u32) -> Duration {
    let fields = stat(process).expect("the process runs");
    let ticks = |field: usize| fields[field].parse::<f64>().expect("the kernel tells ticks");
    // utime and stime, fields 14 and 15 of the whole line.
    Duration::from_secs_f64((ticks(11) + ticks(12)) / TICKS)
}

/// The fields of `/proc/PID/stat` after the name, which may hold anything.
fn stat(process: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}
