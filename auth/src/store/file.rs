//! The file of a SQLite database, which holds password hashes and maybe the signing key: for its owner only.

use std::{
    fs::{DirBuilder, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use tracing::{info, warn};

use super::open::Missing;

/// Creates the file and its folder if they are missing and may be created; SQLite gives its log
/// files the same permissions.
pub(super) fn prepare(path: &Path, missing: Missing) -> io::Result<()> {
    if missing == Missing::Refuse {
        return check(path).map_err(|failure| match failure.kind() {
            ErrorKind::NotFound => io::Error::new(ErrorKind::NotFound, "there is no such file"),
            _ => failure,
        });
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => {
            info!(path = %path.display(), "created the database");
            Ok(())
        }
        Err(failure) if failure.kind() == ErrorKind::AlreadyExists => check(path),
        Err(failure) => Err(failure),
    }
}

fn check(path: &Path) -> io::Result<()> {
    let metadata = path.metadata()?;
    if metadata.is_dir() {
        return Err(io::Error::new(ErrorKind::IsADirectory, "it is a directory"));
    }
    if !metadata.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        warn!(path = %path.display(), "others on this machine may open the database: chmod 600 it");
    }
    OpenOptions::new().read(true).write(true).open(path).map(drop)
}
