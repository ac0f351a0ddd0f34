//! Ed25519 key pairs: random, derived, stored, and as JWK.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{SECRET_KEY_LENGTH, SigningKey};
use hkdf::Hkdf;
use muse_proto::v1::JsonWebKey;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// HKDF `info`, which binds derived keys to their use. Another value gives other keys and ends all
/// tokens.
const HKDF_INFO: &[u8] = b"muse-auth/ed25519-signing-key/v1";

/// An Ed25519 key pair and its id, the JWK thumbprint.
#[derive(Clone)]
pub(crate) struct KeyPair {
    key: SigningKey,
    kid: String,
}

impl KeyPair {
    /// A random pair.
    pub(super) fn random() -> Result<Self, getrandom::Error> {
        let mut seed = [0; SECRET_KEY_LENGTH];
        getrandom::fill(&mut seed)?;
        Ok(Self::from_seed(&seed))
    }

    /// The pair of this number, derived from a secret with HKDF-SHA256.
    pub(super) fn derived(secret: &SecretString, number: i64) -> Self {
        let mut seed = [0; SECRET_KEY_LENGTH];
        let hkdf = Hkdf::<Sha256>::new(None, secret.expose_secret().as_bytes());
        let suffix = if number == 0 { String::new() } else { format!("/{number}") };
        #[expect(clippy::expect_used, reason = "HKDF-SHA256 derives up to 8,160 bytes, and these are 32")]
        hkdf.expand_multi_info(&[HKDF_INFO, suffix.as_bytes()], &mut seed).expect("32 bytes");
        Self::from_seed(&seed)
    }

    /// The pair of a stored private key; `None` if its length is wrong.
    pub(super) fn stored(private_key: &[u8]) -> Option<Self> {
        Some(Self::from_seed(private_key.try_into().ok()?))
    }

    fn from_seed(seed: &[u8; SECRET_KEY_LENGTH]) -> Self {
        let key = SigningKey::from_bytes(seed);
        let kid = thumbprint(&public_key(&key));
        Self { key, kid }
    }

    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    /// The private key, as the signer of `muse_verifier` expects it.
    pub(crate) fn seed(&self) -> &[u8] {
        self.key.as_bytes()
    }

    /// The public key, for publication.
    pub(crate) fn jwk(&self) -> JsonWebKey {
        JsonWebKey {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            kid: self.kid.clone(),
            x: public_key(&self.key),
            alg: "EdDSA".to_owned(),
            r#use: "sig".to_owned(),
        }
    }
}

fn public_key(key: &SigningKey) -> String {
    URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes())
}

/// JWK thumbprint (RFC 7638) with the members that RFC 8037 lists for Ed25519.
fn thumbprint(x: &str) -> String {
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    URL_SAFE_NO_PAD.encode(Sha256::digest(members))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thumbprint_is_that_of_rfc_8037() {
        let expected = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
        assert_eq!(thumbprint("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"), expected);
    }

    #[test]
    fn derived_key_of_a_secret_never_changes() {
        // Calculated with another implementation. A change would end the tokens of every
        // installation.
        let pair = KeyPair::derived(&SecretString::from("a secret of an old installation"), 0);
        assert_eq!(pair.jwk().x, "xB6CZYntxk7brjrCuoU_ul-CIEnC9gSSyjFFXgLFxN0");
        assert_eq!(pair.kid(), "U488H6FBwdV7sbQ5T6J5W0JDl9eMo5ByAsDr9qb46ak");
    }
}
