//! The model on disk: a directory that `muse-models convert` writes and the embedder opens.
//!
//! It holds `model.pt` (TorchScript), `tokenizer.model` (the SentencePiece model), `LICENSE` and `manifest.json`, which
//! lists the size and sha256 of the others and carries a checksum of itself. Opening checks all of them, so that a damaged
//! copy is refused by name at start-up instead of giving wrong vectors.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The TorchScript module.
pub const MODEL_FILE: &str = "model.pt";
/// The SentencePiece model's own bytes.
pub const TOKENIZER_FILE: &str = "tokenizer.model";
/// The licence of the weights.
pub const LICENSE_FILE: &str = "LICENSE";
/// Lists the other files and says what they are.
pub const MANIFEST_FILE: &str = "manifest.json";
/// The files that the manifest lists, all of them and no others.
pub const LISTED_FILES: [&str; 3] = [LICENSE_FILE, MODEL_FILE, TOKENIZER_FILE];

/// The layout that this version writes and reads. It counts up when a change of the files or of what `model.pt` takes and
/// gives makes an older directory unusable.
pub const FORMAT: u32 = 3;

/// What the GEMMs read; they are added up in float32. By libtorch's own operators the layers after the sum over a sentence are
/// float32 always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// IEEE single precision.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
}

impl Precision {
    /// The name in the manifest and everywhere else.
    pub fn as_str(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What the weights were stored as where they came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourcePrecision {
    /// Bytes with a scale and a zero point for each tensor.
    Int8,
    /// The original's own float32.
    Float32,
}

impl SourcePrecision {
    /// The name in the manifest and everywhere else.
    pub fn as_str(self) -> &'static str {
        match self {
            SourcePrecision::Int8 => "int8",
            SourcePrecision::Float32 => "float32",
        }
    }
}

impl fmt::Display for SourcePrecision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The file that a model was converted from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Its name, without folders.
    pub file: String,
    /// Its sha256 in hexadecimal.
    pub sha256: String,
    /// What its weights are stored as.
    pub precision: SourcePrecision,
}

/// What made the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Versions {
    /// Version of `muse-models`.
    pub muse: String,
    /// Version of libtorch that wrote `model.pt`.
    pub libtorch: String,
}

/// Size and digest of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// sha256 in hexadecimal.
    pub sha256: String,
    /// Size in bytes.
    pub bytes: u64,
}

impl FileEntry {
    /// Reads the file once and says what it is.
    pub fn of(path: &Path) -> io::Result<FileEntry> {
        let mut file = File::open(path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut bytes = 0;
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                return Ok(FileEntry { sha256: hex(&hasher.finalize()), bytes });
            }
            hasher.update(&buffer[..count]);
            bytes += count as u64;
        }
    }
}

/// `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`] of the writer.
    pub format: u32,
    /// Name of the model.
    pub name: String,
    /// Version of the model, not of the conversion.
    pub version: String,
    /// Components of a vector.
    pub dimension: u32,
    /// Ids run from 0 to one less than this.
    pub vocabulary: u32,
    /// Languages that the model was trained for, as BCP 47 tags.
    pub languages: Vec<String>,
    /// What `model.pt` computes in.
    pub precision: Precision,
    /// What it was converted from.
    pub source: Source,
    /// What converted it.
    pub versions: Versions,
    /// SPDX identifier of the licence of the weights.
    pub license: String,
    /// Whose work the weights are.
    pub attribution: String,
    /// The other files, by name.
    pub files: BTreeMap<String, FileEntry>,
    /// sha256 of this file as it reads with an empty `checksum`.
    pub checksum: String,
}

impl Manifest {
    /// The bytes of `manifest.json`, with its checksum filled in.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let blank = Manifest { checksum: String::new(), ..self.clone() };
        let checksum = hex(&Sha256::digest(pretty(&blank)?));
        pretty(&Manifest { checksum, ..blank })
    }

    fn from_bytes(bytes: &[u8]) -> Result<Manifest, ModelDirError> {
        #[derive(Deserialize)]
        struct OnlyFormat {
            format: u32,
        }
        let unreadable = |error: serde_json::Error| ModelDirError::Manifest(error.to_string());
        // Looked at first, because a later format may have fields that this version does not know.
        let found = serde_json::from_slice::<OnlyFormat>(bytes).map_err(unreadable)?.format;
        if found != FORMAT {
            return Err(ModelDirError::Format { found });
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(unreadable)?;
        if manifest.to_bytes().map_err(unreadable)? != bytes {
            return Err(ModelDirError::Checksum { file: MANIFEST_FILE.to_owned() });
        }
        let listed: Vec<&str> = manifest.files.keys().map(String::as_str).collect();
        if listed != LISTED_FILES {
            return Err(ModelDirError::Manifest(format!("it lists {listed:?} instead of {LISTED_FILES:?}")));
        }
        Ok(manifest)
    }
}

/// Why a model directory was refused.
#[derive(Debug, thiserror::Error)]
pub enum ModelDirError {
    /// The directory is not there, or is not one.
    #[error("there is no model directory at {}", .0.display())]
    NoDirectory(PathBuf),
    /// One of its files is not there.
    #[error("the model directory lacks {file}")]
    Missing {
        /// The file's name.
        file: String,
    },
    /// One of its files could not be read.
    #[error("cannot read {file} of the model directory: {source}")]
    Io {
        /// The file's name.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// The manifest is not one.
    #[error("{MANIFEST_FILE} of the model directory is not valid: {0}")]
    Manifest(String),
    /// The directory was written by another version.
    #[error("the model directory has format {found}, not {FORMAT} as this version: convert the model again")]
    Format {
        /// The format it has.
        found: u32,
    },
    /// A file was cut short or grew.
    #[error("{file} of the model directory is damaged: {found} bytes instead of {expected}")]
    Size {
        /// The file's name.
        file: String,
        /// The size in the manifest.
        expected: u64,
        /// The size it has.
        found: u64,
    },
    /// A file holds other bytes than were written.
    #[error("{file} of the model directory is damaged: its sha256 does not match")]
    Checksum {
        /// The file's name.
        file: String,
    },
}

/// A model directory whose files have been checked.
#[derive(Debug, Clone)]
pub struct ModelDir {
    path: PathBuf,
    manifest: Manifest,
    tokenizer: Vec<u8>,
}

impl ModelDir {
    /// Opens a directory and checks the presence, size and sha256 of every file in it.
    pub fn open(path: impl Into<PathBuf>) -> Result<ModelDir, ModelDirError> {
        let path = path.into();
        if !path.is_dir() {
            return Err(ModelDirError::NoDirectory(path));
        }
        let manifest = Manifest::from_bytes(&read(&path, MANIFEST_FILE)?)?;
        for (file, expected) in &manifest.files {
            check(&path.join(file), file, expected)?;
        }
        let tokenizer = read(&path, TOKENIZER_FILE)?;
        Ok(ModelDir { path, manifest, tokenizer })
    }

    /// What the directory says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where `model.pt` is.
    pub fn model_path(&self) -> PathBuf {
        self.path.join(MODEL_FILE)
    }

    /// The SentencePiece model's bytes.
    pub fn tokenizer_bytes(&self) -> &[u8] {
        &self.tokenizer
    }
}

fn check(path: &Path, file: &str, expected: &FileEntry) -> Result<(), ModelDirError> {
    // The size first: it tells a copy that was cut short without reading all of it.
    let found = fs::metadata(path).map_err(|error| cannot_read(file, error))?.len();
    if found != expected.bytes {
        return Err(ModelDirError::Size { file: file.to_owned(), expected: expected.bytes, found });
    }
    let entry = FileEntry::of(path).map_err(|error| cannot_read(file, error))?;
    if entry == *expected { Ok(()) } else { Err(ModelDirError::Checksum { file: file.to_owned() }) }
}

fn read(directory: &Path, file: &str) -> Result<Vec<u8>, ModelDirError> {
    fs::read(directory.join(file)).map_err(|error| cannot_read(file, error))
}

fn cannot_read(file: &str, source: io::Error) -> ModelDirError {
    let file = file.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => ModelDirError::Missing { file },
        _ => ModelDirError::Io { file, source },
    }
}

fn pretty(manifest: &Manifest) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = serde_json::to_vec_pretty(manifest)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_dir(path: &Path) -> Manifest {
        let mut files = BTreeMap::new();
        for name in LISTED_FILES {
            fs::write(path.join(name), format!("contents of {name}")).unwrap();
            files.insert(name.to_owned(), FileEntry::of(&path.join(name)).unwrap());
        }
        let (file, sha256) = ("m.onnx".to_owned(), "00".to_owned());
        let source = Source { file, sha256, precision: SourcePrecision::Int8 };
        let manifest = Manifest {
            format: FORMAT,
            name: "m".to_owned(),
            version: "3".to_owned(),
            dimension: 512,
            vocabulary: 10,
            languages: vec!["en".to_owned()],
            precision: Precision::F32,
            source,
            versions: Versions { muse: "0".to_owned(), libtorch: "2".to_owned() },
            license: "Apache-2.0".to_owned(),
            attribution: "somebody".to_owned(),
            files,
            checksum: String::new(),
        };
        fs::write(path.join(MANIFEST_FILE), manifest.to_bytes().unwrap()).unwrap();
        manifest
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused_and_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        write_dir(dir.path());
        ModelDir::open(dir.path()).unwrap();
        for name in [MODEL_FILE, TOKENIZER_FILE, LICENSE_FILE, MANIFEST_FILE] {
            let path = dir.path().join(name);
            let good = fs::read(&path).unwrap();
            for position in 0..good.len() {
                let mut bad = good.clone();
                bad[position] ^= 1;
                fs::write(&path, bad).unwrap();
                let error = ModelDir::open(dir.path()).unwrap_err().to_string();
                // A flip inside the manifest's own list shows as a manifest or as a format that does not hold.
                assert!(
                    error.contains(name) || error.contains("has format"),
                    "{name} at {position}: {error}"
                );
            }
            fs::write(&path, good).unwrap();
        }
        ModelDir::open(dir.path()).unwrap();
    }

    #[test]
    fn what_is_missing_or_cut_short_is_named() {
        let dir = tempfile::tempdir().unwrap();
        write_dir(dir.path());
        fs::write(dir.path().join(MODEL_FILE), "short").unwrap();
        assert!(
            matches!(ModelDir::open(dir.path()), Err(ModelDirError::Size { file, .. }) if file == MODEL_FILE)
        );
        fs::remove_file(dir.path().join(TOKENIZER_FILE)).unwrap();
        fs::remove_file(dir.path().join(MODEL_FILE)).unwrap();
        assert!(
            matches!(ModelDir::open(dir.path()), Err(ModelDirError::Missing { file }) if file == MODEL_FILE)
        );
        assert!(matches!(ModelDir::open(dir.path().join("no")), Err(ModelDirError::NoDirectory(_))));
    }

    #[test]
    fn another_format_says_to_convert_again() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = Manifest { format: FORMAT + 1, ..write_dir(dir.path()) };
        fs::write(dir.path().join(MANIFEST_FILE), manifest.to_bytes().unwrap()).unwrap();
        assert!(
            matches!(ModelDir::open(dir.path()), Err(ModelDirError::Format { found }) if found == FORMAT + 1)
        );
    }
}
