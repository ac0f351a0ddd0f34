//! Argon2id hashes in the PHC string format, `$argon2id$v=19$m=…,t=…,p=1$salt$output`.

use argon2::{
    ARGON2ID_IDENT, Algorithm, Argon2, Params, Version,
    password_hash::phc::{Output, ParamsString, PasswordHash, Salt},
};

use super::{Cost, hash_arena::HashArena};

/// One thread computes a hash, so more lanes would not be faster.
const LANES: u32 = 1;
const SALT_BYTES: usize = 16;
const OUTPUT_BYTES: usize = 32;

/// Hashes a new password.
pub(super) fn hash(password: &[u8], cost: Cost, arena: &mut HashArena) -> Result<String, String> {
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(|failure| failure.to_string())?;
    let mut hash = Argon2idHash::without_output(cost, &salt)?;
    hash.output = hash.compute(password, arena)?;
    hash.to_text()
}

/// A parsed hash.
#[derive(Debug)]
pub(super) struct Argon2idHash {
    params: Params,
    salt: Salt,
    /// Compares in constant time.
    output: Output,
}

impl Argon2idHash {
    /// A hash that no password matches, which takes as long to compute as any other.
    pub(super) fn dummy(cost: Cost) -> Result<Self, String> {
        Self::without_output(cost, &[0; SALT_BYTES])
    }

    fn without_output(cost: Cost, salt: &[u8]) -> Result<Self, String> {
        let params = Params::new(cost.memory_kib(), cost.passes(), LANES, Some(OUTPUT_BYTES));
        Ok(Self {
            params: params.map_err(|failure| failure.to_string())?,
            salt: Salt::new(salt).map_err(|failure| failure.to_string())?,
            output: Output::new(&[0; OUTPUT_BYTES]).map_err(|failure| failure.to_string())?,
        })
    }

    /// Parses a stored hash. The errors do not quote it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let hash = PasswordHash::new(text).map_err(|failure| failure.to_string())?;
        let params = Params::try_from(&hash).map_err(|failure| failure.to_string())?;
        if hash.algorithm != ARGON2ID_IDENT || hash.version != Some(Version::V0x13.into()) {
            return Err("not argon2id of version 19".to_owned());
        }
        if Cost::is_exceeded_by(params.m_cost(), params.t_cost()) {
            return Err("it takes too much memory or time".to_owned());
        }
        let (Some(salt), Some(output)) = (hash.salt, hash.hash) else {
            return Err("it has no salt or no output".to_owned());
        };
        Ok(Self { params, salt, output })
    }

    fn to_text(&self) -> Result<String, String> {
        let params = ParamsString::try_from(&self.params).map_err(|failure| failure.to_string())?;
        let hash = PasswordHash {
            algorithm: ARGON2ID_IDENT,
            version: Some(Version::V0x13.into()),
            params,
            salt: Some(self.salt),
            hash: Some(self.output),
        };
        Ok(hash.to_string())
    }

    /// Whether it is the hash of this password. Compares in constant time.
    pub(super) fn matches(&self, password: &[u8], arena: &mut HashArena) -> Result<bool, String> {
        Ok(self.compute(password, arena)? == self.output)
    }

    /// Whether a new hash would have the same parameters.
    pub(super) fn has_cost(&self, cost: Cost) -> bool {
        (self.params.m_cost(), self.params.t_cost(), self.params.p_cost())
            == (cost.memory_kib(), cost.passes(), LANES)
    }

    fn compute(&self, password: &[u8], arena: &mut HashArena) -> Result<Output, String> {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params.clone());
        let mut bytes = [0; Output::MAX_LENGTH];
        let bytes = &mut bytes[..self.output.len()];
        arena
            .with_blocks(self.params.block_count(), |blocks| {
                argon2.hash_password_into_with_memory(password, &self.salt, bytes, blocks)
            })?
            .map_err(|failure| failure.to_string())?;
        Output::new(bytes).map_err(|failure| failure.to_string())
    }
}

#[cfg(test)]
mod tests {
    use argon2::{PasswordHasher, PasswordVerifier};
    use proptest::prelude::*;

    use super::*;

    fn arena() -> HashArena {
        HashArena::new(19 * 1024)
    }

    #[test]
    fn hash_matches_its_password_only() {
        let arena = &mut arena();
        let text = hash(b"pass\0word", Cost::default(), arena).unwrap();
        assert!(text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        assert_eq!(text.len(), 31 + 22 + 1 + 43);
        assert_ne!(hash(b"pass\0word", Cost::default(), arena).unwrap(), text, "the salt is random");
        let parsed = Argon2idHash::parse(&text).unwrap();
        assert_eq!(parsed.to_text(), Ok(text));
        for (password, right) in
            [(&b"pass\0word"[..], true), (b"pass", false), (b"", false), (&[b'x'; 1024], false)]
        {
            assert_eq!(parsed.matches(password, arena), Ok(right));
        }
    }

    /// Compares with hashes of the crate's own interface, which allocates memory for each hash.
    #[test]
    fn hashes_are_compatible_with_other_implementations() {
        let arena = &mut arena();
        for (memory_kib, passes, lanes) in [(64, 1, 1), (19 * 1024, 2, 1), (30_001, 3, 1), (1024, 4, 4)] {
            let params = Params::new(memory_kib, passes, lanes, None).unwrap();
            let theirs = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            let text = theirs.hash_password(b"secret").unwrap().to_string();
            let parsed = Argon2idHash::parse(&text).unwrap();
            assert_eq!(parsed.matches(b"secret", arena), Ok(true), "{text}");
            assert_eq!(parsed.has_cost(Cost::default()), memory_kib == 19 * 1024);
        }
        let ours = hash(b"secret", Cost::default(), arena).unwrap();
        Argon2::default().verify_password(b"secret", &PasswordHash::new(&ours).unwrap()).unwrap();
    }

    #[test]
    fn dummy_hash_matches_no_password() {
        let dummy = Argon2idHash::dummy(Cost::default()).unwrap();
        assert!(dummy.has_cost(Cost::default()));
        assert_eq!(dummy.matches(b"", &mut arena()), Ok(false));
    }

    #[test]
    fn damaged_hash_is_rejected_without_quoting_it() {
        let (salt, output) = ("c2FsdHNhbHQ", "A".repeat(43));
        let with = |params: &str| format!("$argon2id$v=19${params}${salt}${output}");
        assert!(Argon2idHash::parse(&with("m=1048576,t=32,p=1")).is_ok());
        for text in [
            with("m=1048577,t=2,p=1"),
            with("m=4294967295,t=2,p=1"),
            with("m=19456,t=33,p=1"),
            with("m=19456,t=0,p=1"),
            with("m=8,t=2,p=2"),
            with("m=-1,t=2,p=1"),
            with("m=19456,t=2,p=1,x=1"),
            with("m=19456,t=2,p=1").replace("v=19", "v=16"),
            with("m=19456,t=2,p=1").replace("$v=19", ""),
            with("m=19456,t=2,p=1").replace("argon2id", "argon2i"),
            with("m=19456,t=2,p=1").replace(salt, "c2Fs"),
            with("m=19456,t=2,p=1").replace(&output, "AAAA"),
            with("m=19456,t=2,p=1") + "$",
            format!("$argon2id$v=19$m=19456,t=2,p=1${salt}"),
            "$argon2id$v=19$m=19456,t=2,p=1".to_owned(),
            "$argon2id$".to_owned(),
            "$argon2id".to_owned(),
            String::new(),
        ] {
            let error = Argon2idHash::parse(&text).unwrap_err();
            assert!(!error.contains(salt), "{text:?} {error}");
        }
    }

    proptest! {
        #[test]
        fn parser_does_not_panic(text in r"\$argon2id\$(v=19)?\$?[mtp=,0-9]{0,40}\$\PC{0,40}\$\PC{0,90}|\PC*") {
            let _ = Argon2idHash::parse(&text);
        }

        #[test]
        fn parsed_hash_is_written_back(
            memory_kib in 8u32..=1024 * 1024,
            passes in 1u32..=32,
            salt in prop::collection::vec(any::<u8>(), 8..=48),
            output in prop::collection::vec(any::<u8>(), 10..=64),
        ) {
            let params = Params::new(memory_kib, passes, LANES, Some(output.len())).unwrap();
            let (salt, output) = (Salt::new(&salt).unwrap(), Output::new(&output).unwrap());
            let text = Argon2idHash { params, salt, output }.to_text().unwrap();
            prop_assert_eq!(Argon2idHash::parse(&text).unwrap().to_text().unwrap(), text);
        }
    }
}
