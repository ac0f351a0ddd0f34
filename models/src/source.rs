//! The source of a conversion: finds out what a path is, and opens it.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use muse_model::model_dir::{FileEntry, SourcePrecision};

use crate::{
    onnx::{OnnxError, OnnxFile},
    saved_model::{GRAPH_FILE, SavedModel, SavedModelError, SavedModelFiles},
    tarball::{self, TarballError},
    weights::WeightSource,
};

/// TF Hub's name of the model, in the descriptor beside a folder of its cache.
const TF_HUB_NAME: &str = "google/universal-sentence-encoder-multilingual/3";
/// Bytes at the start of a file that identify its format.
const START: u64 = 512;

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// An ONNX file.
    Onnx,
    /// TF Hub's tarball.
    Tarball,
    /// The folder of a SavedModel.
    SavedModel,
    /// A folder of TF Hub's cache, whose name is a hash, or the folder above it.
    TfHubCache,
}

impl fmt::Display for SourceKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            SourceKind::Onnx => "an ONNX file",
            SourceKind::Tarball => "a tarball of a SavedModel",
            SourceKind::SavedModel => "the folder of a SavedModel",
            SourceKind::TfHubCache => "a TF Hub cache folder",
        })
    }
}

/// Why a path is no source.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", .path.display())]
pub struct SourceError {
    /// The path.
    pub path: PathBuf,
    /// The problem.
    pub problem: SourceProblem,
}

/// The problem of a path.
#[derive(Debug, thiserror::Error)]
pub enum SourceProblem {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is a folder without a SavedModel.
    #[error("neither this folder nor one in it contains {GRAPH_FILE}")]
    NoSavedModel,
    /// It is a folder with several SavedModels, none of which TF Hub downloaded as this model.
    #[error("this folder contains several SavedModels, give one of them: {0}")]
    SeveralSavedModels(String),
    /// It is a file within the folder of a SavedModel.
    #[error("this is a file of a SavedModel: give its folder, {}", .0.display())]
    FileOfSavedModel(PathBuf),
    /// The ONNX file cannot be used.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// The tarball cannot be used.
    #[error(transparent)]
    Tarball(#[from] TarballError),
    /// The SavedModel cannot be used.
    #[error(transparent)]
    SavedModel(#[from] SavedModelError),
}

/// The source of a conversion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSource {
    path: PathBuf,
    kind: SourceKind,
    /// The file, or the folder with `saved_model.pb`.
    root: PathBuf,
}

/// An open source.
#[derive(Debug)]
pub struct OpenSource {
    /// The weights.
    pub weights: Box<dyn WeightSource>,
    /// The SentencePiece model.
    pub tokenizer: Vec<u8>,
    /// The type of the weights.
    pub precision: SourcePrecision,
}

impl ModelSource {
    /// Finds out what a path is, by the contents.
    ///
    /// # Errors
    ///
    /// If the path cannot be read, or is a folder without a SavedModel.
    pub fn detect(path: &Path) -> Result<ModelSource, SourceError> {
        let found = if path.is_dir() { detect_folder(path) } else { detect_file(path) };
        let (kind, root) = found.map_err(|problem| SourceError { path: path.to_owned(), problem })?;
        Ok(ModelSource { path: path.to_owned(), kind, root })
    }

    /// The path, as given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> SourceKind {
        self.kind
    }

    /// The name of the file or folder, without directories.
    #[must_use]
    pub fn name(&self) -> String {
        let absolute = self.path.canonicalize();
        let name = absolute.as_deref().unwrap_or(&self.path).file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// The sha256, in hexadecimal. That of an ONNX file is the file's. That of a SavedModel is the
    /// same for the folder and the tarball: the sha256 of the lines that `sha256sum` prints for its
    /// files, `saved_model.pb`, `variables/variables.data-…` and `variables/variables.index`.
    ///
    /// # Errors
    ///
    /// If a file is missing, cannot be read, or is not a tarball.
    pub fn sha256(&self) -> Result<String, SourceError> {
        let sha256 = || -> Result<String, SourceProblem> {
            Ok(match self.kind {
                SourceKind::Onnx => FileEntry::of(&self.root)?.sha256,
                SourceKind::Tarball => tarball::sha256(&self.root)?,
                SourceKind::SavedModel | SourceKind::TfHubCache => {
                    SavedModelFiles::open(&self.root)?.sha256()?
                }
            })
        };
        sha256().map_err(|problem| self.error(problem))
    }

    /// Opens the source. A tarball is unpacked into temporary files in `folder`.
    ///
    /// # Errors
    ///
    /// If it is another model, or damaged.
    pub fn open(&self, folder: &Path) -> Result<OpenSource, SourceError> {
        self.open_in(folder).map_err(|problem| self.error(problem))
    }

    fn open_in(&self, folder: &Path) -> Result<OpenSource, SourceProblem> {
        let files = match self.kind {
            SourceKind::Onnx => {
                let file = OnnxFile::open(&self.root)?;
                let (tokenizer, precision) = (file.tokenizer()?, file.precision());
                return Ok(OpenSource { weights: Box::new(file), tokenizer, precision });
            }
            SourceKind::Tarball => tarball::unpack(&self.root, folder)?,
            SourceKind::SavedModel | SourceKind::TfHubCache => SavedModelFiles::open(&self.root)?,
        };
        let model = SavedModel::open(files)?;
        let tokenizer = model.tokenizer().to_vec();
        Ok(OpenSource { weights: Box::new(model), tokenizer, precision: SourcePrecision::Float32 })
    }

    fn error(&self, problem: SourceProblem) -> SourceError {
        SourceError { path: self.path.clone(), problem }
    }
}

fn detect_file(path: &Path) -> Result<(SourceKind, PathBuf), SourceProblem> {
    let mut start = Vec::new();
    File::open(path)?.take(START).read_to_end(&mut start)?;
    if tarball::is_tarball(&start) {
        return Ok((SourceKind::Tarball, path.to_owned()));
    }
    if let Some(folder) = folder_of(path) {
        return Err(SourceProblem::FileOfSavedModel(folder));
    }
    Ok((SourceKind::Onnx, path.to_owned()))
}

/// The folder of a SavedModel, if the path is that of a file in it.
fn folder_of(path: &Path) -> Option<PathBuf> {
    let absolute = path.canonicalize().ok()?;
    let folders = absolute.ancestors().skip(1).take(2);
    folders.map(Path::to_owned).find(|folder| folder.join(GRAPH_FILE).is_file())
}

fn detect_folder(folder: &Path) -> Result<(SourceKind, PathBuf), SourceProblem> {
    if folder.join(GRAPH_FILE).is_file() {
        let is_cached =
            folder.canonicalize()?.file_name().is_some_and(|name| is_hash(&name.to_string_lossy()));
        let kind = if is_cached { SourceKind::TfHubCache } else { SourceKind::SavedModel };
        return Ok((kind, folder.to_owned()));
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.join(GRAPH_FILE).is_file() {
            found.push(path);
        }
    }
    found.sort();
    let mut named = found.iter().filter(|path| is_described_as_this_model(path));
    match (found.as_slice(), named.next(), named.next()) {
        ([], ..) => Err(SourceProblem::NoSavedModel),
        ([only], ..) | ([..], Some(only), None) => Ok((SourceKind::TfHubCache, only.clone())),
        _ => {
            let paths: Vec<String> = found.iter().map(|path| path.display().to_string()).collect();
            Err(SourceProblem::SeveralSavedModels(paths.join(", ")))
        }
    }
}

/// Whether a name is a sha1, as TF Hub names the folders of its cache.
fn is_hash(name: &str) -> bool {
    name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether TF Hub's descriptor beside a folder names this model.
fn is_described_as_this_model(folder: &Path) -> bool {
    let mut descriptor = folder.as_os_str().to_owned();
    descriptor.push(".descriptor.txt");
    let text = fs::read(descriptor).unwrap_or_default();
    String::from_utf8_lossy(&text).split_whitespace().any(|word| word.ends_with(TF_HUB_NAME))
}
