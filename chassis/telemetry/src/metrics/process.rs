//! Metrics of the process from `/proc`, with the names that the client libraries of Prometheus use.

use std::fs;

use prometheus::{
    Counter, Gauge,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// Read from `/proc/self` at each scrape; if that fails, the previous values remain.
#[derive(Debug)]
pub(super) struct Process {
    cpu: Counter,
    gauges: [Gauge; 6],
}

/// The name and the help of each of [`Process::gauges`], in the order of [`Reading::gauges`].
const GAUGES: [(&str, &str); 6] = [
    ("process_resident_memory_bytes", "Resident memory size in bytes."),
    ("process_virtual_memory_bytes", "Virtual memory size in bytes."),
    ("process_start_time_seconds", "Start time of the process since unix epoch in seconds."),
    ("process_threads", "Number of OS threads in the process."),
    ("process_open_fds", "Number of open file descriptors."),
    ("process_max_fds", "Maximum number of open file descriptors."),
];

struct Reading {
    cpu_seconds: f64,
    gauges: [f64; 6],
}

impl Process {
    pub(super) fn new() -> Self {
        let named = "the names are well-formed";
        let cpu =
            Counter::new("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.");
        Self {
            cpu: cpu.expect(named),
            gauges: GAUGES.map(|(name, help)| Gauge::new(name, help).expect(named)),
        }
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.cpu.desc().into_iter().chain(self.gauges.iter().flat_map(Collector::desc)).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if let Some(reading) = read() {
            // Concurrent scrapes may arrive here in either order.
            self.cpu.inc_by((reading.cpu_seconds - self.cpu.get()).max(0.0));
            for (gauge, value) in self.gauges.iter().zip(reading.gauges) {
                gauge.set(value);
            }
        }
        self.cpu.collect().into_iter().chain(self.gauges.iter().flat_map(Collector::collect)).collect()
    }
}

fn read() -> Option<Reading> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program may contain any character. The first field here is the third of
    // proc(5).
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    Some(Reading {
        cpu_seconds: (field(14)? + field(15)?) / ticks,
        gauges: [
            field(24)? * rustix::param::page_size() as f64,
            field(23)?,
            booted_at()? + field(22)? / ticks,
            field(20)?,
            fs::read_dir("/proc/self/fd").ok()?.count() as f64,
            max_files()?,
        ],
    })
}

/// Seconds from 1970 to the start of the system.
fn booted_at() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// The soft limit of open files.
fn max_files() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let soft =
        limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?;
    if soft == "unlimited" { Some(f64::INFINITY) } else { soft.parse().ok() }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn metrics_of_this_process_are_plausible() {
        let process = Process::new();
        let file = fs::File::open("/proc/self/stat").unwrap();
        let Reading { cpu_seconds, gauges } = read().unwrap();
        let [resident, virtual_, start, threads, files, max_files] = gauges;
        assert!((0.0..3600.0).contains(&cpu_seconds), "{cpu_seconds}");
        assert!((1e6..1e9).contains(&resident) && resident < virtual_, "{resident} {virtual_}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((now - 3600.0..now + 1.0).contains(&start), "{start} at {now}");
        assert!(threads >= 1.0 && files >= 3.0 && files < max_files, "{threads} {files} {max_files}");
        drop(file);
        let collected = process.collect();
        assert_eq!(collected.len(), process.desc().len());
        assert!(collected[1].get_metric()[0].get_gauge().get_value() > 0.0);
    }
}
