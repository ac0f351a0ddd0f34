//! Reads the files of a SavedModel in a tarball, compressed with gzip or not.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read, Seek, Write},
    path::Path,
};

use flate2::read::MultiGzDecoder;
use muse_model::model_dir::FileEntry;

use crate::saved_model::{GRAPH_FILE, SavedModelError, SavedModelFiles, digest, is_needed};

/// The first bytes of gzip, and the position and the value of a mark of tar.
const GZIP: [u8; 2] = [0x1f, 0x8b];
const TAR: (usize, &[u8]) = (257, b"ustar");
/// The most that is unpacked, in bytes; the original has 280 MB.
const UNPACKED_BYTES: u64 = 2 << 30;

/// Why a tarball cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TarballError {
    /// It cannot be opened.
    #[error("cannot open the tarball: {0}")]
    Open(io::Error),
    /// It is damaged, or the file is another one.
    #[error("the tarball is damaged or truncated: {0}")]
    Damaged(io::Error),
    /// Its files cannot be unpacked.
    #[error("cannot write a temporary file in {folder}: {error}")]
    Write {
        /// The folder.
        folder: String,
        /// The error of the system.
        error: io::Error,
    },
    /// It contains no SavedModel.
    #[error("the tarball contains no {GRAPH_FILE}")]
    NoSavedModel,
    /// It contains several SavedModels.
    #[error("the tarball contains {0} twice: unpack it, and give the folder of one SavedModel")]
    Twice(String),
    /// It is larger than the model.
    #[error("the tarball unpacks to more than {} MiB: it is another model", UNPACKED_BYTES >> 20)]
    TooLarge,
    /// The SavedModel in it cannot be used.
    #[error(transparent)]
    SavedModel(#[from] SavedModelError),
}

/// Whether the first bytes of a file are those of a tarball.
pub(crate) fn is_tarball(start: &[u8]) -> bool {
    let (at, mark) = TAR;
    start.starts_with(&GZIP) || start.get(at..).is_some_and(|rest| rest.starts_with(mark))
}

/// The digest of the SavedModel, which is that of its folder. Writes nothing.
pub(crate) fn sha256(tarball: &Path) -> Result<String, TarballError> {
    let mut digests = BTreeMap::new();
    for_each_file(tarball, &mut |name, file| {
        digests.insert(name, FileEntry::read(file).map_err(TarballError::Damaged)?.sha256);
        Ok(())
    })?;
    Ok(digest(&digests))
}

/// Unpacks the files into temporary files without names in `folder`. The system deletes them when
/// they are closed, even if the process is killed.
pub(crate) fn unpack(tarball: &Path, folder: &Path) -> Result<SavedModelFiles, TarballError> {
    let cannot_write = |error| TarballError::Write { folder: folder.display().to_string(), error };
    let mut files = BTreeMap::new();
    let mut buffer = vec![0; 1 << 20];
    for_each_file(tarball, &mut |name, from| {
        let mut file = tempfile::tempfile_in(folder).map_err(cannot_write)?;
        loop {
            let count = from.read(&mut buffer).map_err(TarballError::Damaged)?;
            if count == 0 {
                break;
            }
            file.write_all(&buffer[..count]).map_err(cannot_write)?;
        }
        files.insert(name, file);
        Ok(())
    })?;
    Ok(SavedModelFiles::unpacked(files)?)
}

/// Calls `visit` with the path of each file of the SavedModel, below the folder of
/// `saved_model.pb`, and its contents.
fn for_each_file(
    tarball: &Path,
    visit: &mut dyn FnMut(String, &mut dyn Read) -> Result<(), TarballError>,
) -> Result<(), TarballError> {
    let damaged = TarballError::Damaged;
    let mut file = File::open(tarball).map_err(TarballError::Open)?;
    let mut start = [0; GZIP.len()];
    let count = file.read(&mut start).map_err(damaged)?;
    file.rewind().map_err(damaged)?;
    let file = BufReader::with_capacity(1 << 16, file);
    let stream: Box<dyn Read> =
        if start[..count] == GZIP { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut archive = tar::Archive::new(stream);
    let (mut names, mut total) = (Vec::new(), 0_u64);
    // Without extensions for long names, which the names of a SavedModel do not need, and which would
    // be read into memory.
    for entry in archive.entries().map_err(damaged)?.raw(true) {
        let mut entry = entry.map_err(damaged)?;
        total = total.saturating_add(entry.size());
        if total > UNPACKED_BYTES {
            return Err(TarballError::TooLarge);
        }
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path_bytes();
        let Some(name) = needed(&String::from_utf8_lossy(&path)).map(str::to_owned) else { continue };
        if names.contains(&name) {
            return Err(TarballError::Twice(name));
        }
        names.push(name.clone());
        visit(name, &mut entry)?;
    }
    // The checksum of gzip is after the end of the archive.
    let mut rest = archive.into_inner().take(UNPACKED_BYTES);
    io::copy(&mut rest, &mut io::sink()).map_err(damaged)?;
    if names.iter().any(|name| name == GRAPH_FILE) { Ok(()) } else { Err(TarballError::NoSavedModel) }
}

/// The path below the folder of the SavedModel: the tarball may contain that folder.
fn needed(path: &str) -> Option<&str> {
    let starts = std::iter::once(0).chain(path.match_indices('/').map(|(at, _)| at + 1));
    starts.map(|start| &path[start..]).find(|name| is_needed(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_saved_model_are_recognised_in_any_folder() {
        for name in [GRAPH_FILE, "variables/variables.index", "variables/variables.data-00000-of-00001"] {
            for folder in ["", "./", "3/", "./a/b/"] {
                assert_eq!(needed(&format!("{folder}{name}")), Some(name));
            }
        }
        for other in
            ["assets/x", "variables.index", "my_saved_model.pb", "variables/variables.data-0-of-1", ""]
        {
            assert_eq!(needed(other), None, "{other}");
        }
    }
}
