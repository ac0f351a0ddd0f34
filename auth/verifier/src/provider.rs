//! What jsonwebtoken needs of cryptography, with Ed25519 and nothing else.
//!
//! The providers that come with the crate bring RSA, ECDSA and HMAC along. None of our tokens uses them, and code
//! that is not there cannot be talked into checking an HS256 signature with a public key as its secret.

use std::sync::Once;

use ed25519_dalek::{SECRET_KEY_LENGTH, Signature, Signer as _, SigningKey, VerifyingKey};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{ErrorKind, Result},
    signature::{Error as SignatureError, Signer, Verifier},
};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: ed25519_signer,
    verifier_factory: ed25519_verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes jsonwebtoken use Ed25519 as implemented here; needed once in a process, and harmless later.
///
/// A [`Verifier`](crate::Verifier) does it for itself. Whoever signs tokens has to call this first; the encoding
/// key is then the 32-byte seed, given to `EncodingKey::from_ed_der` as it is.
pub fn install_crypto_provider() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // An Err says that another provider came first. Then nothing that it accepts beyond EdDSA is accepted here:
        // the verifier allows that one algorithm.
        let _ = PROVIDER.install_default();
    });
}

struct Ed25519Signer(SigningKey);

fn ed25519_signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    if *algorithm != Algorithm::EdDSA || key.family() != AlgorithmFamily::Ed {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let seed: &[u8; SECRET_KEY_LENGTH] =
        key.as_bytes().try_into().map_err(|_| ErrorKind::InvalidKeyFormat)?;
    Ok(Box::new(Ed25519Signer(SigningKey::from_bytes(seed))))
}

impl Signer<Vec<u8>> for Ed25519Signer {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, SignatureError> {
        Ok(self.0.sign(message).to_bytes().to_vec())
    }
}

impl JwtSigner for Ed25519Signer {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

struct Ed25519Verifier(VerifyingKey);

fn ed25519_verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    if *algorithm != Algorithm::EdDSA || key.family() != AlgorithmFamily::Ed {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let bytes = key.try_get_as_bytes()?.try_into().map_err(|_| ErrorKind::InvalidKeyFormat)?;
    let key = VerifyingKey::from_bytes(bytes).map_err(|_| ErrorKind::InvalidKeyFormat)?;
    Ok(Box::new(Ed25519Verifier(key)))
}

impl Verifier<Vec<u8>> for Ed25519Verifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), SignatureError> {
        let signature = Signature::from_slice(signature).map_err(|_| SignatureError::new())?;
        // Strict: a signature has one form, so that nobody can make a second one out of a first.
        self.0.verify_strict(message, &signature).map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for Ed25519Verifier {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}
