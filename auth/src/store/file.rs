//! The file of a SQLite database. It contains password hashes and signing keys, so its permissions
//! are for the owner only.

use std::{
    fs::{DirBuilder, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use tracing::{info, warn};

/// Whether a SQLite file that is missing is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MissingFile {
    Create,
    /// For commands on an existing database: a mistyped path must not leave an empty one.
    Reject,
}

/// Creates the file and its folder if they are missing and that is allowed. SQLite creates its log
/// files with the same permissions.
pub(super) fn prepare(path: &Path, missing: MissingFile) -> io::Result<()> {
    if missing == MissingFile::Reject {
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
        warn!(path = %path.display(), "other users of this machine can open the database: run chmod 600");
    }
    OpenOptions::new().read(true).write(true).open(path).map(drop)
}
