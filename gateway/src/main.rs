//! The program `muse-gateway`.

use std::process::ExitCode;

use muse_chassis::serve;
use muse_gateway::{Config, run};

fn main() -> ExitCode {
    let config: Config = muse_chassis::parse_service_options();
    config.log.init();
    if let Err(bad) = config.tls() {
        return bad.usage();
    }
    serve("muse-gateway", config.addresses(), |listeners, shutdown| run(config, listeners, shutdown))
}
