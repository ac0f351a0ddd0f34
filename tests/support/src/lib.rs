//! Reports of tests that cannot run on this machine.
//!
//! A test that lacks something calls [`skip`] and returns. `tests/run.py`, by which `make test` runs all tests, lists the skipped
//! ones with their reasons at the end. The variable `MUSE_REQUIRE` names, separated by spaces, what must not be missing: a test
//! that lacks one of these fails. CI sets it to what it installs.

use std::{
    env, fmt,
    fs::OpenOptions,
    io::{self, Write},
    thread,
};

/// The file to which results are appended, a line each: outcome, test and reason, with tabs between them.
const REPORT: &str = "MUSE_TEST_REPORT";
/// The requirements that must be met.
const REQUIRE: &str = "MUSE_REQUIRE";

/// What a test needs and a machine may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// The kernel for CPUs with AMX.
    Amx,
    /// A kernel for CPUs with AVX2.
    Avx2,
    /// The kernel for CPUs with AVX-512.
    Avx512,
    /// A browser.
    Chromium,
    /// The right to make memory cgroups.
    MemoryCgroup,
    /// A machine without an NVIDIA driver.
    NoNvidiaDriver,
    /// The server of Postgres.
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
            Self::Chromium => "chromium",
            Self::MemoryCgroup => "memory-cgroup",
            Self::NoNvidiaDriver => "no-nvidia-driver",
            Self::Postgres => "postgres",
            Self::Prometheus => "prometheus",
        }
    }
}

/// Reports that the test of this thread is skipped, because `reason`.
///
/// # Panics
///
/// If `MUSE_REQUIRE` names the requirement.
pub fn skip(requirement: Requirement, reason: impl fmt::Display) {
    // The test runner gives the thread of a test its name.
    report(requirement, thread::current().name().unwrap_or("a test"), &reason);
}

/// Reports that all tests of this program are skipped, because `reason`, and ends it with status 0.
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
    // Past the test runner, which shows the output of failed tests alone.
    let _ = writeln!(io::stderr(), "SKIPPED: {}", line.trim_start_matches("skipped\t").replace('\t', ": "));
    if let Some(file) = env::var_os(REPORT) {
        // One write, so that lines of several processes do not mix.
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
