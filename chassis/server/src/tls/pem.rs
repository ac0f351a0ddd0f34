//! PEM files with certificates and keys.

use std::path::PathBuf;

use tokio_rustls::rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{Error, PemObject},
    },
};

use crate::ConfigError;

/// A PEM file, and the option that names it.
#[derive(Debug, Clone)]
pub struct PemFile {
    pub(super) option: &'static str,
    pub(super) path: PathBuf,
}

impl PemFile {
    pub(super) fn read(&self) -> Result<Pem, ConfigError> {
        let contents = std::fs::read(&self.path).map_err(|failure| {
            ConfigError::new(self.option, format!("cannot read {}: {failure}", self.path.display()))
        })?;
        Ok(Pem { file: self.clone(), contents })
    }
}

/// The contents of a PEM file.
pub struct Pem {
    file: PemFile,
    contents: Vec<u8>,
}

impl PartialEq for Pem {
    fn eq(&self, other: &Self) -> bool {
        self.contents == other.contents
    }
}

impl Pem {
    /// An error of this file.
    pub(super) fn invalid(&self, problem: &str) -> ConfigError {
        ConfigError::new(self.file.option, format!("{}: {problem}", self.file.path.display()))
    }

    /// All certificates, at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
        let found: Vec<_> = CertificateDer::pem_slice_iter(&self.contents)
            .collect::<Result<_, _>>()
            .map_err(|failure| self.invalid(&failure.to_string()))?;
        if found.is_empty() {
            return Err(self.invalid("there is no certificate in it (PEM, \"-----BEGIN CERTIFICATE-----\")"));
        }
        Ok(found)
    }

    /// The certificates as trust anchors.
    pub(super) fn roots(&self) -> Result<RootCertStore, ConfigError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            roots.add(certificate).map_err(|error| self.invalid(&error.to_string()))?;
        }
        Ok(roots)
    }

    /// The first private key.
    pub(super) fn private_key(&self) -> Result<PrivateKeyDer<'static>, ConfigError> {
        PrivateKeyDer::from_pem_slice(&self.contents).map_err(|failure| match failure {
            Error::NoItemsFound => self.invalid("it contains no private key, or only an encrypted one (PEM)"),
            other => self.invalid(&other.to_string()),
        })
    }
}
