//! Hashes of imported users: PBKDF2-HMAC-SHA256 in passlib's format,
//! `$pbkdf2-sha256$rounds$salt$checksum`.

use std::ops::RangeInclusive;

use argon2::password_hash::phc::Output;
use base64::{
    Engine as _,
    alphabet::Alphabet,
    engine::general_purpose::{GeneralPurpose, NO_PAD},
};
use pbkdf2::pbkdf2_hmac;
use sha2::Sha256;

pub(super) const PREFIX: &str = "$pbkdf2-sha256$";
/// Ten million rounds take a second or more, while other logins wait.
const ROUNDS: RangeInclusive<u32> = 1..=10_000_000;
/// passlib's default.
const DEFAULT_ROUNDS: u32 = 29_000;
/// passlib's limit.
const MAX_SALT_BYTES: usize = 1024;
const CHECKSUM_BYTES: usize = 32;

/// passlib's "adapted base64": a dot instead of the plus, and no padding.
const ADAPTED_BASE64: GeneralPurpose = GeneralPurpose::new(
    &match Alphabet::new("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789./") {
        Ok(alphabet) => alphabet,
        Err(_) => panic!("not an alphabet"),
    },
    NO_PAD,
);

/// Checks that a text is a hash of this kind. The errors do not quote it.
pub(crate) fn check_pbkdf2(text: &str) -> Result<(), String> {
    Pbkdf2Hash::parse(text).map(drop)
}

/// A parsed hash.
#[derive(Debug)]
pub(super) struct Pbkdf2Hash {
    rounds: u32,
    salt: Vec<u8>,
    /// Compares in constant time.
    checksum: Output,
}

impl Pbkdf2Hash {
    /// A hash that no password matches, which takes as long to compute as any other.
    pub(super) fn dummy() -> Result<Self, String> {
        let checksum = Output::new(&[0; CHECKSUM_BYTES]).map_err(|failure| failure.to_string())?;
        Ok(Self { rounds: DEFAULT_ROUNDS, salt: vec![0; 16], checksum })
    }

    /// Parses a stored hash.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.strip_prefix(PREFIX).ok_or("not a hash of the kind pbkdf2-sha256")?.split('$');
        let (Some(rounds), Some(salt), Some(checksum), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("not rounds, a salt and a checksum".to_owned());
        };
        Ok(Self {
            rounds: parse_rounds(rounds)?,
            salt: parse_salt(salt)?,
            checksum: parse_checksum(checksum)?,
        })
    }

    /// Whether it is the hash of this password.
    pub(super) fn matches(&self, password: &[u8]) -> Result<bool, String> {
        let mut computed = [0; CHECKSUM_BYTES];
        pbkdf2_hmac::<Sha256>(password, &self.salt, self.rounds, &mut computed);
        let computed = Output::new(&computed).map_err(|failure| failure.to_string())?;
        Ok(computed == self.checksum)
    }
}

fn parse_rounds(text: &str) -> Result<u32, String> {
    let is_canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|rounds| is_canonical && ROUNDS.contains(rounds)).ok_or_else(|| {
        let (least, most) = ROUNDS.into_inner();
        format!("the rounds are not a number from {least} to {most}")
    })
}

fn parse_salt(text: &str) -> Result<Vec<u8>, String> {
    let salt = ADAPTED_BASE64.decode(text).map_err(|_| "the salt is not adapted base64")?;
    if salt.len() <= MAX_SALT_BYTES {
        Ok(salt)
    } else {
        Err(format!("the salt has more than {MAX_SALT_BYTES} bytes"))
    }
}

fn parse_checksum(text: &str) -> Result<Output, String> {
    let checksum = ADAPTED_BASE64.decode(text).map_err(|_| "the checksum is not adapted base64")?;
    if checksum.len() != CHECKSUM_BYTES {
        return Err(format!("the checksum has not {CHECKSUM_BYTES} bytes"));
    }
    Output::new(&checksum).map_err(|failure| failure.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Hashes of passlib 1.7.4: `pbkdf2_sha256.using(rounds=…, salt=…).hash(password)`.
    const PASSLIB_HASHES: &[(&str, &str)] = &[
        (
            "correct horse battery staple",
            "$pbkdf2-sha256$29000$xHjvvZdSqjXGOCcEQIgRYg$zInYLWdgJbOnCANEl1o1PEK0FAor.pXempZ9XhHD/Bs",
        ),
        ("admin", "$pbkdf2-sha256$29000$hHAuJWQMgXDOuVdqTcl57w$s5kFi56lwZ315ldmwkcxBJ3MyQgb43KE/T5VVWhIWRY"),
        (
            "pässwörd-密码-🔑",
            "$pbkdf2-sha256$29000$/r.XEqI0Zmztvfde693buw$Tj1UnQbm8DVYmglkhtIzZvYLJFHsxkb0YvqEJeC5vZI",
        ),
        ("", "$pbkdf2-sha256$29000$5bx3Tmltbc1Zq9W6934PYQ$n3qWF1co6kkRuyC5Hz8PzmF74UsXBxP4pXN0UG9ISS4"),
        (
            "nul\0inside",
            "$pbkdf2-sha256$29000$4/yfE6IUolQKQSjFuLe21g$.qeWRrQy3Cdw8D0ZoexOUA4g44//duTlT/6jJwgCmgg",
        ),
        ("one round", "$pbkdf2-sha256$1$6f1fa23NmVOKsVbqHeMcgw$wFz53zhmNzKcQKP31TRApbyLdfM8nCEDxiXW912YyAA"),
        (
            "many rounds",
            "$pbkdf2-sha256$100000$PeccI0RorfWe856T8v6/1w$smoOZMwdioojvhX3x2bYb4AVLRTEzYaxXRa.zJ1zH8g",
        ),
        ("no salt", "$pbkdf2-sha256$29000$$6rFP8uhXaNnTa4Ry45ZB.rZEePTCJISPYdpLPOEXWjA"),
        ("dots", "$pbkdf2-sha256$10$QgihNOb8/987p7RWaq21Vg$..FQSAjt0dGRVOLePCpdaBpd3Qc5vN.WppFq61pFVDM"),
        (
            "a long salt",
            "$pbkdf2-sha256$1000$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0.P0BBQkNERUZHSElKS0xNTk9QUVJTVFVWV1hZWltcXV5fYGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3x9fn.AgYKDhIWGh4iJiouMjY6PkJGSk5SVlpeYmZqbnJ2en6ChoqOkpaanqKmqq6ytrq.wsbKztLW2t7i5uru8vb6/wMHCw8TFxsfIycrLzM3Oz9DR0tPU1dbX2Nna29zd3t/g4eLj5OXm5.jp6uvs7e7v8PHy8/T19vf4.fr7/P3./w$UHkxHzbMIc6G71gBMJrYiGVhKoh0UPw0/O5mL2gHJds",
        ),
    ];

    #[test]
    fn passlib_hashes_match_their_passwords_only() {
        for (password, text) in PASSLIB_HASHES {
            let hash = Pbkdf2Hash::parse(text).unwrap();
            assert_eq!(hash.matches(password.as_bytes()), Ok(true), "{password:?}");
            assert_eq!(hash.matches(format!("{password} ").as_bytes()), Ok(false), "{password:?}");
        }
        let last = PASSLIB_HASHES.last().unwrap().1;
        assert_eq!(Pbkdf2Hash::parse(last).unwrap().salt, (0..=255).collect::<Vec<u8>>());
    }

    #[test]
    fn dummy_hash_matches_no_password() {
        assert_eq!(Pbkdf2Hash::dummy().unwrap().matches(b""), Ok(false));
    }

    #[test]
    fn hash_that_passlib_does_not_write_is_rejected() {
        let (salt, checksum) = ("B8DYm1OK8d47x/jfW4vxfg", "A".repeat(43));
        let with = |rounds: &str| format!("{PREFIX}{rounds}${salt}${checksum}");
        let longest = ADAPTED_BASE64.encode([7; MAX_SALT_BYTES]);
        let too_long = ADAPTED_BASE64.encode([7; MAX_SALT_BYTES + 1]);
        for text in
            [with("1"), with("10000000"), with("9").replace(salt, ""), with("9").replace(salt, &longest)]
        {
            check_pbkdf2(&text).unwrap();
        }
        for text in [
            with(""),
            with("0"),
            with("01"),
            with("+1"),
            with("-1"),
            with(" 1"),
            with("1e3"),
            with("١"),
            with("10000001"),
            with("4294967297"),
            with("9").replace(salt, &too_long),
            with("9").replace(salt, "B8DYm1OK8d47x+jfW4vxfg"),
            with("9").replace(salt, "B8DYm1OK8d47x/jfW4vxfg=="),
            with("9").replace(salt, "B8DYm1OK8d47x/jfW4vxfh"),
            with("9").replace(&checksum, &"A".repeat(42)),
            with("9").replace(&checksum, &"A".repeat(44)),
            with("9").replace(&checksum, ""),
            with("9") + "$",
            with("9") + "\n",
            format!(" {}", with("9")),
            with("9").replace("sha256", "sha512"),
            with("9").replace("pbkdf2", "argon2"),
            format!("{PREFIX}9${salt}"),
            PREFIX.to_owned(),
            String::new(),
        ] {
            let error = check_pbkdf2(&text).unwrap_err();
            assert!(!error.contains(salt) && !error.contains('\n'), "{text:?} {error}");
        }
    }

    proptest! {
        #[test]
        fn parser_does_not_panic(text in r"\$pbkdf2-sha256\$[0-9]{0,12}\$\PC{0,40}\$\PC{0,50}|\PC*") {
            let _ = check_pbkdf2(&text);
        }

        #[test]
        fn well_formed_hash_is_parsed(
            rounds in ROUNDS,
            salt in prop::collection::vec(any::<u8>(), 0..=MAX_SALT_BYTES),
            checksum in any::<[u8; CHECKSUM_BYTES]>(),
        ) {
            let [salt_text, checksum_text] = [&salt[..], &checksum].map(|bytes| ADAPTED_BASE64.encode(bytes));
            let hash = Pbkdf2Hash::parse(&format!("{PREFIX}{rounds}${salt_text}${checksum_text}")).unwrap();
            prop_assert_eq!((hash.rounds, hash.salt, hash.checksum.as_bytes()), (rounds, salt, &checksum[..]));
        }
    }
}
