//! A SavedModel of TensorFlow as a source of weights, without TensorFlow: `saved_model.pb` has the
//! SentencePiece model, a TensorBundle (`variables/`) the weights.

mod bundle;
mod checksum;
mod files;
mod graph;
mod siblings;
mod table;
mod variables;

use std::io;

use muse_model::inference::DIMENSION;

pub(crate) use files::{GRAPH_FILE, SavedModelFiles, digest, is_needed};

use crate::{
    proto_file::ProtoError,
    weights::{EmbeddingTable, TABLE_ROWS, WeightError, WeightSource, interleave},
};
use bundle::Bundle;
use files::FileRoles;
use graph::Graph;
use variables::Variables;

const ENCODER: &str = "EncoderDNN";
const TABLE: &str = "Embeddings";

/// Why a SavedModel cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SavedModelError {
    /// A file cannot be read.
    #[error("cannot read {file} of the SavedModel: {error}")]
    Read {
        /// Its path below the folder.
        file: String,
        /// The error of the system.
        error: io::Error,
    },
    /// A file does not exist.
    #[error("the SavedModel lacks {file}")]
    Missing {
        /// Its path below the folder.
        file: String,
    },
    /// A file is truncated or has other contents than were written.
    #[error("{file} of the SavedModel is damaged: {reason}")]
    Damaged {
        /// Its path below the folder.
        file: String,
        /// A clause.
        reason: String,
    },
    /// A file that has no checksums is not valid.
    #[error("{file} of the SavedModel is damaged: {error}")]
    Proto {
        /// Its path below the folder.
        file: &'static str,
        /// The problem.
        error: ProtoError,
    },
    /// The format has a variant that this version does not read.
    #[error("the SavedModel {0}, which is not supported")]
    Unsupported(&'static str),
    /// A variable of the encoder is missing.
    #[error("the SavedModel has no variable {0}")]
    MissingVariable(String),
    /// Two variables have the same name.
    #[error("the SavedModel has two variables {0}")]
    Duplicate(String),
    /// A variable has an unexpected shape.
    #[error("variable {name} of the SavedModel has the shape {found:?} instead of {expected:?}")]
    Shape {
        /// Its name.
        name: String,
        /// The shape in the file.
        found: Vec<i64>,
        /// The expected shape.
        expected: Vec<i64>,
    },
    /// The parts of a variable cannot be concatenated.
    #[error("variable {name} of the SavedModel has parts of different shapes")]
    PartShapes {
        /// Its name.
        name: String,
    },
    /// It is another model of the same family.
    #[error("this is {0}: only universal-sentence-encoder-multilingual can be converted")]
    OtherModel(&'static str),
    /// There is no SentencePiece model.
    #[error("saved_model.pb has no node SentencepieceOp with a model")]
    NoTokenizer,
}

impl SavedModelError {
    fn damaged(file: &str, reason: impl Into<String>) -> SavedModelError {
        SavedModelError::Damaged { file: file.to_owned(), reason: reason.into() }
    }
}

/// A SavedModel: the positions of its variables by name.
#[derive(Debug)]
pub struct SavedModel {
    bundle: Bundle,
    variables: Variables,
    tokenizer: Vec<u8>,
}

impl SavedModel {
    /// Reads the graph and the names of the variables.
    pub(crate) fn open(files: SavedModelFiles) -> Result<SavedModel, SavedModelError> {
        let FileRoles { graph, index, mut data } = files.into_roles()?;
        let Graph { tokenizer, signatures } = Graph::read(&graph)?;
        let bundle = Bundle::open(&index, &mut data)?;
        let variables = Variables::of(&bundle)?;
        if let Some(name) = siblings::identify(&signatures, tokenizer.is_some(), variables.names()) {
            return Err(SavedModelError::OtherModel(name));
        }
        let tokenizer = tokenizer.ok_or(SavedModelError::NoTokenizer)?;
        Ok(SavedModel { bundle, variables, tokenizer })
    }

    /// The SentencePiece model.
    #[must_use]
    pub fn tokenizer(&self) -> &[u8] {
        &self.tokenizer
    }

    fn floats(&self, name: &str, shape: &[i64]) -> Result<Vec<f32>, SavedModelError> {
        self.variables.floats(&self.bundle, name, shape)
    }
}

impl WeightSource for SavedModel {
    fn encoder(&self, name: &str, shape: &[i64]) -> Result<Vec<f32>, WeightError> {
        Ok(self.floats(&format!("{ENCODER}/{name}"), shape)?)
    }

    fn table(&self) -> Result<EmbeddingTable, WeightError> {
        let shape = |rows: usize| [rows as i64, DIMENSION as i64];
        let shards = self.variables.shards(TABLE);
        if shards == 0 {
            return Ok(EmbeddingTable::Floats(self.floats(TABLE, &shape(TABLE_ROWS))?));
        }
        // Token `i` is in shard `i % shards`.
        let rows = interleave(shards, |shard| {
            let rows = TABLE_ROWS.saturating_sub(shard).div_ceil(shards);
            self.floats(&format!("{TABLE}/sharded_{shard}"), &shape(rows))
        })?;
        Ok(EmbeddingTable::Floats(rows))
    }
}
