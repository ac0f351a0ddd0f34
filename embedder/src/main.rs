//! The program `muse-embedder`.

use std::process::ExitCode;

use muse_embedder::{Config, run};
use muse_server::serve;

fn main() -> ExitCode {
    let config: Config = muse_server::parse_service_options();
    config.log.init();
    if let Err(bad) = config.tls() {
        return bad.usage();
    }
    // A device that cannot be used ends the program before it binds.
    if let Err(refused) = config.resolve_device() {
        return muse_server::report(Err(refused));
    }
    serve("muse-embedder", config.addresses(), |listeners, shutdown| run(config, listeners, shutdown))
}
