//! Reads `saved_model.pb`: the SentencePiece model, and the names of the signatures.

use std::{fs::File, ops::Range};

use super::{SavedModelError, files::GRAPH_FILE};
use crate::proto_file::{ProtoError, ProtoFile};

/// Paths of field numbers in `SavedModel`, below which there is one `MetaGraphDef` per tag set: the
/// nodes of the functions of the library, those of the graph, and the entries of the signatures.
const FUNCTION_NODES: [u64; 5] = [2, 2, 2, 1, 3];
const GRAPH_NODES: [u64; 3] = [2, 2, 1];
const SIGNATURES: [u64; 2] = [2, 5];
/// Fields of `NodeDef` and `AttrValue`.
const OP: u64 = 2;
const ATTRIBUTES: u64 = 5;
const BYTES: u64 = 2;
/// Fields of the entry of a map.
const KEY: u64 = 1;
const VALUE: u64 = 2;

/// What a conversion needs of `saved_model.pb`.
#[derive(Debug, Default)]
pub(super) struct Graph {
    /// The SentencePiece model.
    pub(super) tokenizer: Option<Vec<u8>>,
    /// The names of the signatures.
    pub(super) signatures: Vec<String>,
}

impl Graph {
    /// Reads the file.
    pub(super) fn read(file: &File) -> Result<Graph, SavedModelError> {
        let unreadable = |error| SavedModelError::Proto { file: GRAPH_FILE, error };
        let mut graph = Graph::default();
        graph.read_fields(file).map_err(unreadable)?;
        Ok(graph)
    }

    fn read_fields(&mut self, file: &File) -> Result<(), ProtoError> {
        let mut proto = ProtoFile::new(file)?;
        let whole = proto.message();
        for path in [&FUNCTION_NODES[..], &GRAPH_NODES] {
            proto.visit(whole.clone(), path, &mut |proto, node| {
                if self.tokenizer.is_none() {
                    self.tokenizer = sentencepiece_model(proto, &node)?;
                }
                Ok(())
            })?;
        }
        proto.visit(whole, &SIGNATURES, &mut |proto, entry| {
            if let Some(key) = proto.find(&entry, KEY)? {
                self.signatures.push(proto.string(&key)?);
            }
            Ok(())
        })
    }
}

/// The attribute `model` of a node, if the node is a SentencePiece model.
fn sentencepiece_model(proto: &mut ProtoFile<'_>, node: &Range<u64>) -> Result<Option<Vec<u8>>, ProtoError> {
    let Some(op) = proto.find(node, OP)? else { return Ok(None) };
    if proto.string(&op)? != "SentencepieceOp" {
        return Ok(None);
    }
    let mut model = None;
    proto.visit(node.clone(), &[ATTRIBUTES], &mut |proto, attribute| {
        let (Some(key), Some(value)) = (proto.find(&attribute, KEY)?, proto.find(&attribute, VALUE)?) else {
            return Ok(());
        };
        if proto.string(&key)? == "model"
            && let Some(bytes) = proto.find(&value, BYTES)?
            && !bytes.is_empty()
        {
            model = Some(proto.read(&bytes)?);
        }
        Ok(())
    })?;
    Ok(model)
}
