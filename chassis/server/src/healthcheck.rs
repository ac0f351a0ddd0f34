//! `PROGRAM healthcheck`: checks on the admin port of the running service whether it is ready. For
//! containers, whose images contain neither a shell nor curl.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use clap::{ArgMatches, Command, Parser};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, runtime::Builder, time::timeout};

use muse_telemetry::{print_to_operator, with_causes};

use crate::{empty_variables::ignore_empty_variables, end};

const NAME: &str = "healthcheck";
/// The id of the option `--private-listen`, the address of the admin port.
const PRIVATE_LISTEN: &str = "private_listen";
/// Time for the whole check.
const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error("the service chooses an admin port when it starts; set --private-listen to its address")]
    AnyPort,
    #[error("{0} does not answer: {1}")]
    Connect(SocketAddr, #[source] std::io::Error),
    #[error("{0} does not answer: {1}")]
    Request(SocketAddr, #[source] hyper::Error),
    #[error("{0} does not answer within {seconds} s", seconds = TIMEOUT.as_secs())]
    Timeout(SocketAddr),
    #[error("{}", .0.trim_end())]
    NotReady(String),
}

/// Parses options from the command line and the environment. For an invalid option it prints the
/// error and exits with status 64.
///
/// The service has the option `--private-listen`. The command `healthcheck`, which requires only
/// that option, ends the program here: with status 0 if the running service is ready, otherwise
/// with 1.
#[must_use]
pub fn parse_service_options<C: Parser>() -> C {
    let command = ignore_empty_variables(with_command(C::command()));
    let matches = command.try_get_matches().unwrap_or_else(|refused| end(&refused));
    if matches.subcommand_name() == Some(NAME) {
        let ready = check(&matches).inspect_err(|failure| print_to_operator(&format!("error: {failure}")));
        std::process::exit(i32::from(ready.is_err()));
    }
    C::from_arg_matches(&matches).unwrap_or_else(|refused| end(&refused.format(&mut C::command())))
}

fn with_command(options: Command) -> Command {
    let command = Command::new(NAME).about(
        "Check on the admin port of the running service whether it is ready: exit status 0 if so, else 1",
    );
    options.subcommand(command).subcommand_negates_reqs(true)
}

fn check(options: &ArgMatches) -> Result<(), String> {
    let address =
        options.get_one::<SocketAddr>(PRIVATE_LISTEN).ok_or("there is no option --private-listen")?;
    let address = reachable(*address);
    let runtime =
        Builder::new_current_thread().enable_all().build().map_err(|failure| failure.to_string())?;
    let checked = runtime.block_on(async { timeout(TIMEOUT, get_readiness(address)).await });
    checked.unwrap_or(Err(CheckError::Timeout(address))).map_err(|failure| with_causes(&failure))
}

/// The address at which this machine can reach a service that listens on `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    SocketAddr::new(ip, address.port())
}

async fn get_readiness(address: SocketAddr) -> Result<(), CheckError> {
    if address.port() == 0 {
        return Err(CheckError::AnyPort);
    }
    let failed = |failure| CheckError::Request(address, failure);
    let stream =
        TcpStream::connect(address).await.map_err(|failure| CheckError::Connect(address, failure))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    tokio::spawn(connection);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = http::Uri::from_static("/readyz");
    if let Ok(host) = address.to_string().parse() {
        request.headers_mut().insert(header::HOST, host);
    }
    let response = sender.send_request(request).await.map_err(failed)?;
    if response.status() == StatusCode::OK {
        return Ok(());
    }
    let status = response.status();
    let body = response.into_body().collect().await.map_err(failed)?.to_bytes();
    Err(CheckError::NotReady(format!("{address} answers {status}: {}", String::from_utf8_lossy(&body))))
}

#[cfg(test)]
mod tests {
    use clap::{Arg, value_parser};
    use tokio::{net::TcpListener, runtime::Runtime};

    use super::*;
    use muse_telemetry::metrics::Metrics;

    use crate::{admin::AdminPort, health};

    fn checked(address: SocketAddr) -> Result<(), String> {
        let admin = Arg::new(PRIVATE_LISTEN).long("private-listen").global(true);
        let options = Command::new("muse-test")
            .arg(admin.value_parser(value_parser!(SocketAddr)))
            .arg(Arg::new("required").long("needed").required(true));
        let arguments = ["muse-test", "healthcheck", "--private-listen", &address.to_string()];
        check(&with_command(options).try_get_matches_from(arguments).unwrap())
    }

    #[test]
    fn readiness_is_checked_without_the_other_options() {
        let runtime = Runtime::new().unwrap();
        let (health, _service) = health::not_serving(&[""]);
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let admin = AdminPort::new(health.clone(), Metrics::of("muse-test"));
        // The check starts a runtime of its own, so it runs outside this one.
        let server = runtime.block_on(async { admin.serve(listener) });

        let not_ready = checked(address).unwrap_err();
        assert!(
            not_ready.ends_with("503 Service Unavailable: not ready: the service does not serve"),
            "{not_ready}"
        );
        health.report(true);
        assert_eq!(checked(address), Ok(()));
        let everywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
        assert_eq!(checked(everywhere), Ok(()));
        drop(server);
        drop(runtime);
        let gone = checked(address).unwrap_err();
        assert!(gone.starts_with(&format!("{address} does not answer: ")), "{gone}");
        assert!(checked(SocketAddr::new(address.ip(), 0)).unwrap_err().contains("--private-listen"));
    }
}
