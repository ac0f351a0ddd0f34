//! Prevents that a failing program reveals what users sent: a panic hook that redacts, and no core dumps.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    panic::{self, PanicHookInfo},
    thread,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::error;

use crate::logging::flush_brief;

/// Installs the panic hook and disables core dumps. The hook logs the location of a panic, and its message only if that is a fixed
/// text: others may quote what a user sent.
pub(crate) fn prevent() {
    panic::set_hook(Box::new(log_panic));
    forbid_core_dumps();
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let said = panic.payload().downcast_ref::<&'static str>().copied();
    let said = said.unwrap_or("what it says is left out, since it may quote what a user sent");
    // Only with RUST_BACKTRACE, as by default.
    let trace = Backtrace::capture();
    let trace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
    error!(thread = thread.name().unwrap_or_default(), location, trace, "panicked: {said}");
    // The program may end with this panic.
    flush_brief();
}

/// With a limit of 0 the kernel writes no file, but still pipes the dump to a program; with 1 it does neither (core(5)).
fn forbid_core_dumps() {
    let most = getrlimit(Resource::Core).maximum.map_or(1, |most| most.min(1));
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
    if let Err(failure) = setrlimit(Resource::Core, limit) {
        error!(%failure, "core dumps cannot be forbidden");
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::process::ExitStatusExt,
        process::{Command, abort},
    };

    use crate::{LogArgs, LogFormat};

    /// Set in a child process that panics.
    const FAILING: &str = "MUSE_TEST_OF_LEAKS";
    const NAME: &str = "panic_hook::tests::a_program_that_fails_leaves_no_text_behind";

    fn fail(text: &str) -> ! {
        LogArgs { log_level: "trace".to_owned(), log_format: LogFormat::Json }.init();
        let quotes = text.to_owned();
        assert!(std::thread::spawn(move || panic!("cannot read {quotes}")).join().is_err());
        let quotes = text.to_owned();
        assert!(std::thread::spawn(move || quotes[..1].len()).join().is_err());
        assert!(std::thread::spawn(|| panic!("a fixed text")).join().is_err());
        abort()
    }

    #[test]
    fn a_program_that_fails_leaves_no_text_behind() {
        if let Ok(text) = std::env::var(FAILING) {
            fail(&text);
        }
        let folder = std::env::temp_dir().join(format!("muse-leaks-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let failed = Command::new("sh")
            .args(["-c", "ulimit -c $(ulimit -Hc); exec \"$@\"", "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(FAILING, "é canary")
            .current_dir(&folder)
            .output()
            .unwrap();
        let left = fs::read_dir(&folder).unwrap().count();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!((failed.status.core_dumped(), left), (false, 0), "{failed:?}");
        let said = String::from_utf8(failed.stderr).unwrap();
        assert!(!said.contains("canary"), "{said}");
        let panics: Vec<_> = said.lines().filter(|line| line.contains("panicked: ")).collect();
        assert_eq!(panics.len(), 3, "{said}");
        assert!(
            panics[0].contains("chassis/telemetry/src/panic_hook.rs") && panics[0].contains("left out"),
            "{said}"
        );
        assert!(panics[2].contains("panicked: a fixed text"), "{said}");
    }
}
