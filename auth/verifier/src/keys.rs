//! The public keys with which tokens are checked.

use std::collections::HashMap;

use jsonwebtoken::DecodingKey;
use muse_proto::v1::JsonWebKey;
use tracing::warn;

/// Public keys by their ids.
pub(crate) type Keys = HashMap<String, DecodingKey>;

/// Reads a JWKS. A key of a kind that is not known here is left out, so that a newer auth service may publish some.
pub(crate) fn read(published: &[JsonWebKey]) -> Keys {
    published.iter().filter_map(|key| Some((key.kid.clone(), usable(key)?))).collect()
}

fn usable(key: &JsonWebKey) -> Option<DecodingKey> {
    let known = key.kty == "OKP" && key.crv == "Ed25519" && key.alg == "EdDSA" && !key.kid.is_empty();
    let decoded = known.then(|| DecodingKey::from_ed_components(&key.x).ok()).flatten();
    let of_length = decoded.filter(|decoded| decoded.try_get_as_bytes().is_ok_and(|bytes| bytes.len() == 32));
    if of_length.is_none() {
        warn!(kid = key.kid, kty = key.kty, crv = key.crv, "a published key cannot be used and is left out");
    }
    of_length
}
