//! Builds the TLS configuration of a server or a client from PEM files. Errors in the files are
//! reported here, not in the first handshake.

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

/// Protocol names of ALPN.
const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// The files of a server, or their contents.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerFiles<T> {
    /// The CA of the client certificates; `None` if clients need no certificate.
    pub(super) ca: Option<T>,
    pub(super) cert: T,
    pub(super) key: T,
}

/// The files of a client, or their contents.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientFiles<T> {
    /// The CA of the server certificates.
    pub(super) ca: T,
    pub(super) cert: T,
    pub(super) key: T,
}

/// A TLS configuration that is built from files.
pub trait TlsConfig: Sized + Send + Sync + 'static {
    /// The files.
    type Files: fmt::Debug + Clone + Send + Sync + 'static;
    /// The contents of the files.
    type Contents: PartialEq + Send + Sync + 'static;

    /// Reads the files.
    ///
    /// # Errors
    ///
    /// With the option of the file that cannot be read.
    fn read(files: &Self::Files) -> Result<Self::Contents, ConfigError>;

    /// Builds the configuration from the contents of the files.
    ///
    /// # Errors
    ///
    /// With the option of the file that is invalid.
    fn build(contents: &Self::Contents) -> Result<Self, ConfigError>;
}

impl TlsConfig for ServerConfig {
    type Files = ServerFiles<PemFile>;
    type Contents = ServerFiles<Pem>;

    fn read(files: &Self::Files) -> Result<Self::Contents, ConfigError> {
        let ca = files.ca.as_ref().map(PemFile::read).transpose()?;
        Ok(ServerFiles { ca, cert: files.cert.read()?, key: files.key.read()? })
    }

    fn build(ServerFiles { ca, cert, key }: &Self::Contents) -> Result<Self, ConfigError> {
        let chain = cert.certificates()?;
        let builder = Self::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| cert.invalid(&error.to_string()))?;
        let builder = match ca {
            Some(ca) => {
                let roots = ca.roots()?;
                check(cert, server_is_signed(&chain, &roots))?;
                builder.with_client_cert_verifier(verifier(ca, roots)?)
            }
            None => {
                check(cert, server_is_current(&chain))?;
                builder.with_no_client_auth()
            }
        };
        let mut config = builder
            .with_single_cert(chain, key.private_key()?)
            .map_err(|error| pair_error(cert, key, &error))?;
        config.alpn_protocols = match ca {
            Some(_) => vec![H2.to_vec()],
            None => vec![H2.to_vec(), HTTP_1_1.to_vec()],
        };
        Ok(config)
    }
}

impl TlsConfig for ClientConfig {
    type Files = ClientFiles<PemFile>;
    type Contents = ClientFiles<Pem>;

    fn read(files: &Self::Files) -> Result<Self::Contents, ConfigError> {
        Ok(ClientFiles { ca: files.ca.read()?, cert: files.cert.read()?, key: files.key.read()? })
    }

    fn build(ClientFiles { ca, cert, key }: &Self::Contents) -> Result<Self, ConfigError> {
        let chain = cert.certificates()?;
        let roots = ca.roots()?;
        check(cert, client_is_signed(&chain, &*verifier(ca, roots.clone())?))?;
        let mut config = Self::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| cert.invalid(&error.to_string()))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key.private_key()?)
            .map_err(|error| pair_error(cert, key, &error))?;
        config.alpn_protocols = vec![H2.to_vec()];
        Ok(config)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The verifier of client certificates.
fn verifier(ca: &Pem, roots: RootCertStore) -> Result<Arc<dyn ClientCertVerifier>, ConfigError> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| ca.invalid(&error.to_string()))
}

/// Rejects a certificate that the other side would reject.
fn check(cert: &Pem, checked: Result<(), Error>) -> Result<(), ConfigError> {
    checked.map_err(|error| cert.invalid(&format!("the certificate {}", explain::rejection(&error))))
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

/// Checks the encoding and the validity period. Only the clients know the CA, but the verifier
/// checks these before the signature.
fn server_is_current(chain: &[CertificateDer<'_>]) -> Result<(), Error> {
    match server_is_signed(chain, &RootCertStore::empty()) {
        Err(
            error @ Error::InvalidCertificate(
                CertificateError::BadEncoding
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYetContext { .. },
            ),
        ) => Err(error),
        _ => Ok(()),
    }
}

fn pair_error(cert: &Pem, key: &Pem, error: &Error) -> ConfigError {
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            key.invalid("the key does not belong to the certificate")
        }
        Error::InvalidCertificate(_) => cert.invalid(&error.to_string()),
        _ => key.invalid(&error.to_string()),
    }
}
