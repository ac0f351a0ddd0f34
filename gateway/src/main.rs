//! The program `muse-gateway`.

use std::process::ExitCode;

use muse_gateway::{Args, Config, run};
use muse_server::{allocator, serve};

fn main() -> ExitCode {
    let args: Args = muse_server::parse_service_options();
    args.log.init();
    // Such as those of large bodies.
    allocator::return_large_blocks();
    match Config::try_from(args) {
        Ok(config) => {
            serve("muse-gateway", config.addresses, |listeners, shutdown| run(config, listeners, shutdown))
        }
        Err(error) => error.usage(),
    }
}
