//! Secrets are read from the environment or from a file, never from the command line, which all
//! users of the machine can see.

use std::{env, ffi::OsString, fs::File, io::Read, path::Path};

use muse_server::ConfigError;
use secrecy::SecretString;

/// Bound on the bytes that are read, so that a wrong path does not exhaust the memory.
const MAX_BYTES: u64 = 64 * 1024;

/// The secret in `file` (the value of `option`), without the end of its line, or in the environment
/// variable `variable`.
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
            .map(|value| value.into_string().map_err(|_| ConfigError::new(variable, "it is not UTF-8")))
            .transpose()
            .map(|value| value.map(SecretString::from));
    };
    if value.is_some() {
        return Err(ConfigError::new(option, format!("{variable} is set, too: use one of them")));
    }
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
    read.map_err(|failure| ConfigError::new(option, format!("cannot read {}: {failure}", path.display())))?;
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Some(SecretString::from(secret.strip_suffix('\r').unwrap_or(secret))))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn secret_is_read_from_file_or_environment_not_both() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let from = |value: Option<&str>, file: Option<&Path>| {
            choose("SECRET", value.map(OsString::from), "--secret-file", file)
                .map(|secret| secret.map(|secret| secret.expose_secret().to_owned()))
                .map_err(|error| error.to_string())
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
