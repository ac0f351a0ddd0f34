//! Hashes of ours: argon2id, stored as `$argon2id$v=19$m=…,t=…,p=1$salt$output`.

use argon2::{
    ARGON2ID_IDENT, Algorithm, Argon2, Params, Version,
    password_hash::phc::{Output, ParamsString, PasswordHash, Salt},
};

use super::{Cost, hash_arena::Memory};

/// A lane is for a thread of its own, and here there is one thread for each hash.
const LANES: u32 = 1;
const SALT_BYTES: usize = 16;
const OUTPUT_BYTES: usize = 32;

/// Hashes a new password.
pub(super) fn hash(password: &[u8], cost: Cost, memory: &mut Memory) -> Result<String, String> {
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(|failure| failure.to_string())?;
    let mut hash = Argon2idHash::unfinished(cost, &salt)?;
    hash.output = hash.compute(password, memory)?;
    hash.to_text()
}

/// A stored hash, taken apart.
#[derive(Debug)]
pub(super) struct Argon2idHash {
    params: Params,
    salt: Salt,
    /// Compares in constant time.
    output: Output,
}

impl Argon2idHash {
    /// The hash of no user: no password is right, and it takes as long as any other to find that out.
    pub(super) fn of_nobody(cost: Cost) -> Result<Self, String> {
        Self::unfinished(cost, &[0; SALT_BYTES])
    }

    fn unfinished(cost: Cost, salt: &[u8]) -> Result<Self, String> {
        let params = Params::new(cost.memory_kib(), cost.passes(), LANES, Some(OUTPUT_BYTES));
        Ok(Self {
            params: params.map_err(|failure| failure.to_string())?,
            salt: Salt::new(salt).map_err(|failure| failure.to_string())?,
            output: Output::new(&[0; OUTPUT_BYTES]).map_err(|failure| failure.to_string())?,
        })
    }

    /// Takes a stored hash apart. The errors hold nothing of it.
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

    /// Whether it is the hash of this password.
    pub(super) fn is_of(&self, password: &[u8], memory: &mut Memory) -> Result<bool, String> {
        Ok(self.compute(password, memory)? == self.output)
    }

    /// Whether a new hash would be made in the same way.
    pub(super) fn costs(&self, cost: Cost) -> bool {
        (self.params.m_cost(), self.params.t_cost(), self.params.p_cost())
            == (cost.memory_kib(), cost.passes(), LANES)
    }

    fn compute(&self, password: &[u8], memory: &mut Memory) -> Result<Output, String> {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params.clone());
        let mut bytes = [0; Output::MAX_LENGTH];
        let bytes = &mut bytes[..self.output.len()];
        memory
            .lend(self.params.block_count(), |blocks| {
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

    fn memory() -> Memory {
        Memory::new(19 * 1024)
    }

    #[test]
    fn a_hash_is_of_its_password_alone() {
        let memory = &mut memory();
        let text = hash(b"pass\0word", Cost::default(), memory).unwrap();
        assert!(text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        assert_eq!(text.len(), 31 + 22 + 1 + 43);
        assert_ne!(hash(b"pass\0word", Cost::default(), memory).unwrap(), text, "the salt is random");
        let parsed = Argon2idHash::parse(&text).unwrap();
        assert_eq!(parsed.to_text(), Ok(text));
        for (password, right) in
            [(&b"pass\0word"[..], true), (b"pass", false), (b"", false), (&[b'x'; 1024], false)]
        {
            assert_eq!(parsed.is_of(password, memory), Ok(right));
        }
    }

    /// The argon2 crate's own way allocates for each hash, ours reuses what another hash left.
    #[test]
    fn it_is_the_argon2_of_everyone_else() {
        let memory = &mut memory();
        for (memory_kib, passes, lanes) in [(64, 1, 1), (19 * 1024, 2, 1), (30_001, 3, 1), (1024, 4, 4)] {
            let params = Params::new(memory_kib, passes, lanes, None).unwrap();
            let theirs = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            let text = theirs.hash_password(b"secret").unwrap().to_string();
            let parsed = Argon2idHash::parse(&text).unwrap();
            assert_eq!(parsed.is_of(b"secret", memory), Ok(true), "{text}");
            assert_eq!(parsed.costs(Cost::default()), memory_kib == 19 * 1024);
        }
        let ours = hash(b"secret", Cost::default(), memory).unwrap();
        Argon2::default().verify_password(b"secret", &PasswordHash::new(&ours).unwrap()).unwrap();
    }

    #[test]
    fn nobody_has_a_password() {
        let nobody = Argon2idHash::of_nobody(Cost::default()).unwrap();
        assert!(nobody.costs(Cost::default()));
        assert_eq!(nobody.is_of(b"", &mut memory()), Ok(false));
    }

    #[test]
    fn what_is_damaged_is_refused() {
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
            let refused = Argon2idHash::parse(&text).unwrap_err();
            assert!(!refused.contains(salt), "{text:?} {refused}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in r"\$argon2id\$(v=19)?\$?[mtp=,0-9]{0,40}\$\PC{0,40}\$\PC{0,90}|\PC*") {
            let _ = Argon2idHash::parse(&text);
        }

        #[test]
        fn what_is_read_is_written_back(
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
