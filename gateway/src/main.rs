//! The program `muse-gateway`.

use std::process::ExitCode;

use muse_gateway::{Config, run};
use muse_server::{allocator, serve};

fn main() -> ExitCode {
    let config: Config = muse_server::parse_service_options();
    config.log.init();
    if let Err(bad) = config.tls() {
        return bad.usage();
    }
    // Such as those of large bodies.
    allocator::return_large_blocks();
    serve("muse-gateway", config.addresses(), |listeners, shutdown| run(config, listeners, shutdown))
}
