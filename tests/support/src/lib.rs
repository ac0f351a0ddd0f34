//! Reports of tests that cannot run on this machine.
//!
//! A test without one of its requirements calls [`skip`] and returns. `tests/run.py`, which runs
//! all tests for `make test`, lists skipped tests with their reasons at the end. If the variable
//! `MUSE_REQUIRE`, a list separated by spaces, contains the missing requirement, the test fails
//! instead. CI sets it to the tools that it installs.

use std::{
    env, fmt,
    fs::OpenOptions,
    io::{self, Write},
    thread,
};

/// Environment variable with the path of the report. Each result is a line: outcome, test and
/// reason, separated by tabs.
const REPORT: &str = "MUSE_TEST_REPORT";
/// Environment variable with the requirements whose absence is a failure.
const REQUIRE: &str = "MUSE_REQUIRE";

/// A requirement of a test that a machine may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// A CPU with AMX.
    Amx,
    /// A CPU with AVX2.
    Avx2,
    /// A CPU with AVX-512.
    Avx512,
    /// A CPU with AVX512-BF16.
    Avx512Bf16,
    /// A CPU with AVX512-VNNI.
    Avx512Vnni,
    /// A CPU with AVX-VNNI.
    AvxVnni,
    /// A C++ compiler for ARM, and qemu.
    Arm,
    /// A browser.
    Chromium,
    /// Permission to create memory cgroups.
    MemoryCgroup,
    /// A machine without an NVIDIA driver.
    NoNvidiaDriver,
    /// A Postgres server.
    Postgres,
    /// `prometheus` and `promtool`.
    Prometheus,
}

impl Requirement {
    /// The name in `MUSE_REQUIRE`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Amx => "amx",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512-bf16",
            Self::Avx512Vnni => "avx512-vnni",
            Self::AvxVnni => "avx-vnni",
            Self::Arm => "arm",
            Self::Chromium => "chromium",
            Self::MemoryCgroup => "memory-cgroup",
            Self::NoNvidiaDriver => "no-nvidia-driver",
            Self::Postgres => "postgres",
            Self::Prometheus => "prometheus",
        }
    }
}

/// Reports the test of this thread as skipped.
///
/// # Panics
///
/// If `MUSE_REQUIRE` names the requirement.
pub fn skip(requirement: Requirement, reason: impl fmt::Display) {
    // The test runner names the thread after the test.
    report(requirement, thread::current().name().unwrap_or("a test"), &reason);
}

/// Reports all tests of this program as skipped, and exits with status 0.
///
/// # Panics
///
/// If `MUSE_REQUIRE` names the requirement.
pub fn skip_all(requirement: Requirement, reason: impl fmt::Display) -> ! {
    report(requirement, "all tests", &reason);
    std::process::exit(0)
}

fn report(requirement: Requirement, test: &str, reason: &dyn fmt::Display) {
    let requirement = requirement.name();
    let required = env::var(REQUIRE).unwrap_or_default();
    let is_required = required.split_whitespace().any(|name| name == requirement);
    assert!(!is_required, "{requirement}: {reason} ({REQUIRE} is {required:?})");

    let line = format!("skipped\t{} {test}\t{requirement}: {reason}", program());
    // Not captured by the test runner, which shows only the output of failed tests.
    let _ = writeln!(io::stderr(), "SKIPPED: {}", line.trim_start_matches("skipped\t").replace('\t', ": "));
    if let Some(file) = env::var_os(REPORT) {
        // A single write, so that lines of several processes do not interleave.
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&file)
            .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        written.unwrap_or_else(|failure| panic!("{}: {failure}", file.display()));
    }
}

/// The name of the test program, without the hash that cargo appends.
fn program() -> String {
    let name =
        env::current_exe().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let name = name.unwrap_or_default();
    name.rsplit_once('-').map_or(name.clone(), |(name, _)| name.to_owned())
}
