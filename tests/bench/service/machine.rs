//! The machine and the software of a report.

use std::{fs, process::Command};

use muse_tests::root;

/// CPU features that accelerate the forward pass.
const RELEVANT_FLAGS: [&str; 7] =
    ["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8"];

/// The description as a Markdown list.
pub(crate) fn description(libtorch: &str) -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let of_cpu = |key: &str| {
        let line = cpu.lines().find(|line| line.split(':').next().is_some_and(|name| name.trim() == key));
        line.and_then(|line| line.split_once(':')).map_or("unknown", |(_, value)| value.trim())
    };
    let flags: Vec<&str> = of_cpu("flags").split_whitespace().collect();
    let relevant: Vec<&str> = RELEVANT_FLAGS.into_iter().filter(|flag| flags.contains(flag)).collect();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let gb = kib.and_then(|kib| kib.trim().parse::<f64>().ok()).map_or(f64::NAN, |kib| kib * 1024.0 / 1e9);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "- processor: {} (family {}, model {}), {cores} cores; {}\n- memory: {gb:.0} GB\n- kernel: Linux {}\n\
         - libtorch: {libtorch}\n- date: {}\n- commit: {}\n",
        of_cpu("model name"),
        of_cpu("cpu family"),
        of_cpu("model"),
        relevant.join(", "),
        kernel.trim(),
        output_of("date", &["-u", "+%Y-%m-%d"]),
        output_of("git", &["describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]),
    )
}

/// The output of a program, one line.
fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(root()).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}
