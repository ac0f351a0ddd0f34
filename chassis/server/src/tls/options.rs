//! Options of TLS. Secrets travel in plain text on the loopback interface only, unless an option
//! allows more.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, builder::BoolishValueParser};
use http::{Uri, uri::Scheme};

use super::{
    ClientTls, ServerTls,
    config::{ClientFiles, ServerFiles},
    pem::PemFile,
    reload::Reloadable,
};
use crate::{
    ConfigError,
    loopback::{is_loopback, is_loopback_url},
};

/// Options of connections between the services.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of TLS between the services")]
pub struct PeerArgs {
    /// PEM file with the CA that signs the certificates of the services. Enables mutual TLS between
    /// the services, together with the certificate and its key: a service accepts connections with
    /// a certificate of this CA only, and URLs of other services begin with https://.
    #[arg(long, env = "MUSE_TLS_CA", requires_all = ["peer_cert", "peer_key"], global = true)]
    pub peer_ca: Option<PathBuf>,
    /// PEM file with the certificate of this service and its intermediate certificates.
    #[arg(long, env = "MUSE_TLS_CERT", requires_all = ["peer_ca", "peer_key"], global = true)]
    pub peer_cert: Option<PathBuf>,
    /// PEM file with the private key of the certificate.
    #[arg(long, env = "MUSE_TLS_KEY", requires_all = ["peer_ca", "peer_cert"], global = true)]
    pub peer_key: Option<PathBuf>,
    /// Allow passwords and tokens in plain text on addresses that are not loopback, for networks
    /// that are isolated or encrypt traffic themselves.
    #[arg(long, env = "MUSE_PLAINTEXT", value_parser = BoolishValueParser::new(), global = true)]
    pub plaintext: bool,
}

impl PeerArgs {
    /// The CA, the certificate and its key: all three, or none.
    fn files(&self) -> Option<[PemFile; 3]> {
        let [ca, cert, key] = [
            ("--peer-ca (MUSE_TLS_CA)", &self.peer_ca),
            ("--peer-cert (MUSE_TLS_CERT)", &self.peer_cert),
            ("--peer-key (MUSE_TLS_KEY)", &self.peer_key),
        ]
        .map(|(option, path)| path.clone().map(|path| PemFile { option, path }));
        Some([ca?, cert?, key?])
    }

    /// The TLS files with which a service listens on `address` for the other services, if any.
    ///
    /// # Errors
    ///
    /// If a file is invalid, or if other machines would send passwords and tokens to the address in
    /// plain text (`--listen`).
    pub fn server(&self, address: SocketAddr) -> Result<Option<ServerTls>, ConfigError> {
        let files = self.files().map(|[ca, cert, key]| ServerFiles { ca: Some(ca), cert, key });
        let tls = files.map(Reloadable::open).transpose()?;
        self.allow_listening(address, tls.is_some(), "MUSE_TLS_CA, MUSE_TLS_CERT and MUSE_TLS_KEY")?;
        Ok(tls)
    }

    /// The TLS files with which a service connects to other services, if any. `urls` are their URLs
    /// with the names of the options.
    ///
    /// # Errors
    ///
    /// If a file is invalid, or if passwords and tokens would go to another machine in plain text.
    pub fn client<'a>(
        &self,
        urls: impl IntoIterator<Item = (&'static str, &'a Uri)>,
    ) -> Result<Option<ClientTls>, ConfigError> {
        let files = self.files().map(|[ca, cert, key]| ClientFiles { ca, cert, key });
        let tls = files.map(Reloadable::open).transpose()?;
        for (option, url) in urls {
            self.allow_url(option, url, tls.is_some())?;
        }
        Ok(tls)
    }

    fn allow_url(&self, option: &'static str, url: &Uri, has_tls: bool) -> Result<(), ConfigError> {
        check_scheme(option, url, has_tls)?;
        if url.scheme() == Some(&Scheme::HTTPS) || self.plaintext || is_loopback_url(url) {
            return Ok(());
        }
        let problem = format!(
            "{url} would receive passwords and tokens in plain text: use https:// (with MUSE_TLS_CA, \
             MUSE_TLS_CERT and MUSE_TLS_KEY), or allow it with MUSE_PLAINTEXT=true"
        );
        Err(ConfigError::new(option, problem))
    }

    fn allow_listening(
        &self,
        address: SocketAddr,
        has_tls: bool,
        alternative: &str,
    ) -> Result<(), ConfigError> {
        if has_tls || self.plaintext || is_loopback(address.ip()) {
            return Ok(());
        }
        let problem = format!(
            "{address} would receive passwords and tokens in plain text: set {alternative}, or allow it with \
             MUSE_PLAINTEXT=true"
        );
        Err(ConfigError::new("--listen", problem))
    }
}

/// Rejects the URL of an option if a [`Connector`](super::Connector) with or without TLS does not
/// support its scheme.
pub(crate) fn check_scheme(option: &'static str, url: &Uri, has_tls: bool) -> Result<(), ConfigError> {
    let problem = match url.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS && has_tls => return Ok(()),
        Some(scheme) if *scheme == Scheme::HTTPS => "needs MUSE_TLS_CA, MUSE_TLS_CERT and MUSE_TLS_KEY",
        _ => "does not begin with http:// or https://",
    };
    Err(ConfigError::new(option, format!("{url} {problem}")))
}

/// Options of connections of users to the gateway.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of TLS for users")]
pub struct UserArgs {
    /// PEM file with the certificate and its intermediate certificates. Enables TLS, together with
    /// the key: the port accepts TLS connections only.
    #[arg(long, env = "GATEWAY_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the private key of the certificate.
    #[arg(long, env = "GATEWAY_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

impl UserArgs {
    /// The TLS files with which the gateway listens on `address` for users, if any.
    ///
    /// # Errors
    ///
    /// If a file is invalid, or if other machines would send passwords and tokens to the address in
    /// plain text (`--listen`).
    pub fn server(&self, address: SocketAddr, peers: &PeerArgs) -> Result<Option<ServerTls>, ConfigError> {
        let [cert, key] = [
            ("--tls-cert (GATEWAY_TLS_CERT)", &self.tls_cert),
            ("--tls-key (GATEWAY_TLS_KEY)", &self.tls_key),
        ]
        .map(|(option, path)| path.clone().map(|path| PemFile { option, path }));
        let files = cert.zip(key).map(|(cert, key)| ServerFiles { ca: None, cert, key });
        let tls = files.map(Reloadable::open).transpose()?;
        peers.allow_listening(address, tls.is_some(), "GATEWAY_TLS_CERT and GATEWAY_TLS_KEY")?;
        Ok(tls)
    }
}
