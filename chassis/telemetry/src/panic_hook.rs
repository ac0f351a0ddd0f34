//! A panic hook that redacts user data, and the limit that disables core dumps.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    panic::{self, PanicHookInfo},
    thread,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::error;

use crate::log_output::flush_brief;

/// Installs the panic hook and disables core dumps. The hook logs the location of a panic, and its
/// message only if it is a fixed text: a formatted message may quote user data.
pub(crate) fn install() {
    panic::set_hook(Box::new(log_panic));
    disable_core_dumps();
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic.payload().downcast_ref::<&'static str>().copied();
    let message = message.unwrap_or("the message is omitted, because it may quote user data");
    // Empty unless RUST_BACKTRACE is set.
    let trace = Backtrace::capture();
    let trace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
    error!(thread = thread.name().unwrap_or_default(), location, trace, "panicked: {message}");
    // The program may end with this panic.
    flush_brief();
}

/// With a limit of 0 the kernel writes no file, but still pipes the dump to a program; with 1 it
/// does neither (core(5)).
fn disable_core_dumps() {
    let maximum = getrlimit(Resource::Core).maximum.map_or(1, |maximum| maximum.min(1));
    let limit = Rlimit { current: Some(maximum), maximum: Some(maximum) };
    if let Err(failure) = setrlimit(Resource::Core, limit) {
        error!(%failure, "cannot disable core dumps");
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
    const PANICKING: &str = "MUSE_TEST_PANIC_HOOK";
    const NAME: &str = "panic_hook::tests::panic_and_core_dump_reveal_no_user_data";

    fn panic_with(text: &str) -> ! {
        LogArgs { log_level: "trace".to_owned(), log_format: LogFormat::Json }.init();
        let quotes = text.to_owned();
        assert!(std::thread::spawn(move || panic!("cannot read {quotes}")).join().is_err());
        let quotes = text.to_owned();
        assert!(std::thread::spawn(move || quotes[..1].len()).join().is_err());
        assert!(std::thread::spawn(|| panic!("a fixed text")).join().is_err());
        abort()
    }

    #[test]
    fn panic_and_core_dump_reveal_no_user_data() {
        if let Ok(text) = std::env::var(PANICKING) {
            panic_with(&text);
        }
        let folder = std::env::temp_dir().join(format!("muse-panic-hook-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let output = Command::new("sh")
            .args(["-c", "ulimit -c $(ulimit -Hc); exec \"$@\"", "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(PANICKING, "é canary")
            .current_dir(&folder)
            .output()
            .unwrap();
        let files = fs::read_dir(&folder).unwrap().count();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!((output.status.core_dumped(), files), (false, 0), "{output:?}");
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(!log.contains("canary"), "{log}");
        let panics: Vec<_> = log.lines().filter(|line| line.contains("panicked: ")).collect();
        assert_eq!(panics.len(), 3, "{log}");
        assert!(
            panics[0].contains("chassis/telemetry/src/panic_hook.rs") && panics[0].contains("omitted"),
            "{log}"
        );
        assert!(panics[2].contains("panicked: a fixed text"), "{log}");
    }
}
