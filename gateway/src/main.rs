//! The program `muse-gateway`.

use std::process::ExitCode;

use muse_chassis::{allocator, serve};
use muse_gateway::{Config, run};

fn main() -> ExitCode {
    let config: Config = muse_chassis::parse_service_options();
    config.log.init();
    if let Err(bad) = config.tls() {
        return bad.usage();
    }
    // Such as those of large bodies.
    allocator::return_large_blocks();
    serve("muse-gateway", config.addresses(), |listeners, shutdown| run(config, listeners, shutdown))
}
