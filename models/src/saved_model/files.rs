//! The files of a SavedModel, in a folder or unpacked from a tarball.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Seek},
    path::Path,
};

use muse_model::model_dir::{FileEntry, hex};
use sha2::{Digest, Sha256};

use super::SavedModelError;

/// The graph.
pub(crate) const GRAPH_FILE: &str = "saved_model.pb";
/// The index of the variables.
pub(crate) const INDEX_FILE: &str = "variables/variables.index";
const DATA_PREFIX: &str = "variables/variables.data-";
/// The largest index; that of the original has 30 kB.
const INDEX_BYTES: u64 = 8 << 20;

/// Open files of a SavedModel.
#[derive(Debug)]
pub(crate) struct SavedModelFiles {
    /// By their paths below the folder.
    files: BTreeMap<String, File>,
}

/// The files of a SavedModel by their roles.
#[derive(Debug)]
pub(super) struct FileRoles {
    /// `saved_model.pb`.
    pub(super) graph: File,
    /// The bytes of the index.
    pub(super) index: Vec<u8>,
    /// The data files by their names.
    pub(super) data: BTreeMap<String, File>,
}

impl SavedModelFiles {
    /// Opens the files in a folder.
    pub(crate) fn open(folder: &Path) -> Result<SavedModelFiles, SavedModelError> {
        let mut names = vec![GRAPH_FILE.to_owned(), INDEX_FILE.to_owned()];
        // Without this folder the index is missing, too.
        let entries = fs::read_dir(folder.join("variables")).into_iter().flatten().flatten();
        let entries = entries.map(|entry| format!("variables/{}", entry.file_name().to_string_lossy()));
        names.extend(entries.filter(|name| is_data_file(name)));
        let open = |name: String| match File::open(folder.join(&name)) {
            Ok(file) => Ok((name, file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(SavedModelError::Missing { file: name })
            }
            Err(error) => Err(SavedModelError::Read { file: name, error }),
        };
        Ok(SavedModelFiles { files: names.into_iter().map(open).collect::<Result<_, _>>()? })
    }

    /// Files that were unpacked, by their paths below the folder.
    pub(crate) fn unpacked(files: BTreeMap<String, File>) -> Result<SavedModelFiles, SavedModelError> {
        for name in [GRAPH_FILE, INDEX_FILE] {
            if !files.contains_key(name) {
                return Err(SavedModelError::Missing { file: name.to_owned() });
            }
        }
        Ok(SavedModelFiles { files })
    }

    /// [`digest`] of the files.
    pub(crate) fn sha256(&self) -> Result<String, SavedModelError> {
        let mut digests = BTreeMap::new();
        for (name, mut file) in &self.files {
            let unreadable = |error| SavedModelError::Read { file: name.clone(), error };
            file.rewind().map_err(unreadable)?;
            digests.insert(name.clone(), FileEntry::read(&mut file).map_err(unreadable)?.sha256);
        }
        Ok(digest(&digests))
    }

    /// The files by their roles.
    pub(super) fn into_roles(mut self) -> Result<FileRoles, SavedModelError> {
        let mut take = |name: &str| {
            self.files.remove(name).ok_or_else(|| SavedModelError::Missing { file: name.to_owned() })
        };
        let (graph, mut index) = (take(GRAPH_FILE)?, take(INDEX_FILE)?);
        let unreadable = |error| SavedModelError::Read { file: INDEX_FILE.to_owned(), error };
        index.rewind().map_err(unreadable)?;
        let mut bytes = Vec::new();
        index.take(INDEX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > INDEX_BYTES {
            return Err(SavedModelError::damaged(
                INDEX_FILE,
                format!("it has more than {INDEX_BYTES} bytes"),
            ));
        }
        Ok(FileRoles { graph, index: bytes, data: self.files })
    }
}

/// Whether a path below the folder is that of a file of the conversion.
pub(crate) fn is_needed(name: &str) -> bool {
    name == GRAPH_FILE || name == INDEX_FILE || is_data_file(name)
}

/// The name of a data file.
pub(super) fn data_file_name(shard: i32, shards: i32) -> String {
    format!("{DATA_PREFIX}{shard:05}-of-{shards:05}")
}

fn is_data_file(name: &str) -> bool {
    let Some((shard, shards)) = name.strip_prefix(DATA_PREFIX).and_then(|name| name.split_once("-of-"))
    else {
        return false;
    };
    [shard, shards].iter().all(|part| part.len() == 5 && part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The sha256 of a SavedModel, from those of its files by their paths: the digest of the output of
/// `sha256sum` for them in the order of the paths.
pub(crate) fn digest(files: &BTreeMap<String, String>) -> String {
    let lines: String = files.iter().map(|(name, sha256)| format!("{sha256}  {name}\n")).collect();
    hex(&Sha256::digest(lines))
}
