//! Secrets come from the environment or from a file, never from the command line, which everyone on the machine sees.

use std::{env, ffi::OsString, fs::File, io::Read, path::Path};

use muse_server::ConfigError;
use secrecy::SecretString;

use super::bad;

/// More than any secret needs, so that a wrong path does not fill the memory.
const LONGEST: u64 = 64 * 1024;

/// The secret in `file` (the value of `option`), without the line's end, or else in the environment's `variable`.
pub(super) fn read(
    variable: &'static str,
    option: &'static str,
    file: Option<&Path>,
) -> Result<Option<SecretString>, ConfigError> {
    choose(variable, env::var_os(variable), option, file)
}

fn choose(
    variable: &'static str,
    value: Option<OsString>,
    option: &'static str,
    file: Option<&Path>,
) -> Result<Option<SecretString>, ConfigError> {
    let Some(path) = file else {
        return value
            .map(|value| value.into_string().map_err(|_| bad(variable, "it is not UTF-8")))
            .transpose()
            .map(|value| value.map(SecretString::from));
    };
    if value.is_some() {
        return Err(bad(option, format!("{variable} is set, too: which of them is meant?")));
    }
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text));
    read.map_err(|failure| bad(option, format!("cannot read {}: {failure}", path.display())))?;
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Some(SecretString::from(secret.strip_suffix('\r').unwrap_or(secret))))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_secret_is_in_a_file_or_in_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let from = |value: Option<&str>, file: Option<&Path>| {
            choose("SECRET", value.map(OsString::from), "--secret-file", file)
                .map(|secret| secret.map(|secret| secret.expose_secret().to_owned()))
                .map_err(|refused| refused.to_string())
        };
        assert_eq!(from(None, None), Ok(None));
        assert_eq!(from(Some(" x\n"), None), Ok(Some(" x\n".to_owned())));
        for (content, expected) in
            [("s3cret\n", "s3cret"), ("s3cret\r\n", "s3cret"), ("a b", "a b"), ("a\n\n", "a\n")]
        {
            std::fs::write(&path, content).unwrap();
            assert_eq!(from(None, Some(&path)), Ok(Some(expected.to_owned())));
        }
        assert!(from(Some("x"), Some(&path)).unwrap_err().contains("SECRET is set, too"));
        assert!(from(None, Some(&folder.path().join("none"))).unwrap_err().contains("--secret-file"));
        assert!(from(None, Some(folder.path())).is_err());
    }
}
