//! The program `muse-embedder`.

use std::process::ExitCode;

use muse_embedder::{Args, Config, run};
use muse_server::serve;

fn main() -> ExitCode {
    let args: Args = muse_server::parse_service_options();
    args.log.init();
    match Config::try_from(args) {
        Ok(config) => {
            serve("muse-embedder", config.addresses, |listeners, shutdown| run(config, listeners, shutdown))
        }
        Err(error) => error.report(),
    }
}
