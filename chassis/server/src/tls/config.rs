//! Makes the TLS configuration of a server or a client from PEM files. Errors in them are reported here, not in the first
//! handshake.

use std::{fmt, sync::Arc};

use tokio_rustls::rustls::{
    CertificateError, ClientConfig, Error, InconsistentKeys, RootCertStore, ServerConfig,
    client::verify_server_cert_signed_by_trust_anchor,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, UnixTime},
    server::{ParsedCertificate, WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::{
    explain,
    pem::{Pem, PemFile},
};
use crate::ConfigError;

/// ALPN's names.
const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// The files of a server, or what they contained.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerFiles<T> {
    /// The CA of the certificates that clients must show; `None` if everybody may connect.
    pub(super) ca: Option<T>,
    pub(super) cert: T,
    pub(super) key: T,
}

/// The files of a client, or what they contained.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientFiles<T> {
    /// The CA of the certificates that servers must show.
    pub(super) ca: T,
    pub(super) cert: T,
    pub(super) key: T,
}

/// A side of TLS that is made from files.
pub trait Side: Sized + Send + Sync + 'static {
    /// The files.
    type Files: fmt::Debug + Clone + Send + Sync + 'static;
    /// What they contained.
    type Contents: PartialEq + Send + Sync + 'static;

    /// Reads the files.
    ///
    /// # Errors
    ///
    /// Names the option of the file that cannot be read.
    fn read(files: &Self::Files) -> Result<Self::Contents, ConfigError>;

    /// Makes this side from what the files contained.
    ///
    /// # Errors
    ///
    /// Names the option of the file that cannot be used.
    fn make(contents: &Self::Contents) -> Result<Self, ConfigError>;
}

impl Side for ServerConfig {
    type Files = ServerFiles<PemFile>;
    type Contents = ServerFiles<Pem>;

    fn read(files: &Self::Files) -> Result<Self::Contents, ConfigError> {
        let ca = files.ca.as_ref().map(PemFile::read).transpose()?;
        Ok(ServerFiles { ca, cert: files.cert.read()?, key: files.key.read()? })
    }

    fn make(ServerFiles { ca, cert, key }: &Self::Contents) -> Result<Self, ConfigError> {
        let chain = cert.certificates()?;
        let builder = Self::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|refused| cert.bad(&refused.to_string()))?;
        let builder = match ca {
            Some(ca) => {
                let roots = ca.roots()?;
                check(cert, server_is_signed(&chain, &roots))?;
                builder.with_client_cert_verifier(verifier(ca, roots)?)
            }
            None => {
                check(cert, server_is_of_today(&chain))?;
                builder.with_no_client_auth()
            }
        };
        let mut config = builder
            .with_single_cert(chain, key.private_key()?)
            .map_err(|refused| pair_refused(cert, key, &refused))?;
        config.alpn_protocols = match ca {
            Some(_) => vec![H2.to_vec()],
            None => vec![H2.to_vec(), HTTP_1_1.to_vec()],
        };
        Ok(config)
    }
}

impl Side for ClientConfig {
    type Files = ClientFiles<PemFile>;
    type Contents = ClientFiles<Pem>;

    fn read(files: &Self::Files) -> Result<Self::Contents, ConfigError> {
        Ok(ClientFiles { ca: files.ca.read()?, cert: files.cert.read()?, key: files.key.read()? })
    }

    fn make(ClientFiles { ca, cert, key }: &Self::Contents) -> Result<Self, ConfigError> {
        let chain = cert.certificates()?;
        let roots = ca.roots()?;
        check(cert, client_is_signed(&chain, &*verifier(ca, roots.clone())?))?;
        let mut config = Self::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|refused| cert.bad(&refused.to_string()))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key.private_key()?)
            .map_err(|refused| pair_refused(cert, key, &refused))?;
        config.alpn_protocols = vec![H2.to_vec()];
        Ok(config)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// What checks the certificates of clients.
fn verifier(ca: &Pem, roots: RootCertStore) -> Result<Arc<dyn ClientCertVerifier>, ConfigError> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|refused| ca.bad(&refused.to_string()))
}

/// Refuses a certificate that the other side would refuse.
fn check(cert: &Pem, checked: Result<(), Error>) -> Result<(), ConfigError> {
    checked.map_err(|refused| cert.bad(&format!("the certificate {}", explain::refusal(&refused))))
}

fn client_is_signed(chain: &[CertificateDer<'_>], verifier: &dyn ClientCertVerifier) -> Result<(), Error> {
    let (own, intermediates) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
    verifier.verify_client_cert(own, intermediates, UnixTime::now()).map(drop)
}

fn server_is_signed(chain: &[CertificateDer<'_>], roots: &RootCertStore) -> Result<(), Error> {
    let (own, intermediates) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
    let own = ParsedCertificate::try_from(own)?;
    let algorithms = provider().signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&own, roots, intermediates, UnixTime::now(), algorithms)
}

/// Whose signature it must be is known to the users' programs alone, but its time is looked at before that.
fn server_is_of_today(chain: &[CertificateDer<'_>]) -> Result<(), Error> {
    match server_is_signed(chain, &RootCertStore::empty()) {
        Err(
            refused @ Error::InvalidCertificate(
                CertificateError::BadEncoding
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYetContext { .. },
            ),
        ) => Err(refused),
        _ => Ok(()),
    }
}

fn pair_refused(cert: &Pem, key: &Pem, refused: &Error) -> ConfigError {
    match refused {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            key.bad("the key is not that of the certificate")
        }
        Error::InvalidCertificate(_) => cert.bad(&refused.to_string()),
        _ => key.bad(&refused.to_string()),
    }
}
