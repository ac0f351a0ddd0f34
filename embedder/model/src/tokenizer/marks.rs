//! The post-processor of the `tokenizers` crate's interface: adds `<s>` and `</s>`.

use tokenizers::{Encoding, PostProcessor, Result};

use super::{BEGIN, END, MARKS};

/// Puts [`BEGIN`] in front of a sentence and [`END`] after it, if special tokens are requested.
///
/// The crate's `TemplateProcessing` does that, too, but copies each encoding, also if nothing is
/// added. Pairs of sentences are errors: MUSE has none.
#[derive(Debug, Clone)]
pub struct Marks {
    begin: String,
    end: String,
}

impl Marks {
    /// With the pieces of [`BEGIN`] and [`END`].
    pub(super) fn new(begin: &str, end: &str) -> Self {
        Self { begin: begin.to_owned(), end: end.to_owned() }
    }
}

impl Marks {
    fn mark(&self, mut encoding: Encoding) -> Encoding {
        encoding.set_sequence_id(0);
        Encoding::merge([special_token(BEGIN, &self.begin), encoding, special_token(END, &self.end)], false)
    }
}

impl PostProcessor for Marks {
    fn added_tokens(&self, _is_pair: bool) -> usize {
        MARKS as usize
    }

    fn process(
        &self,
        encoding: Encoding,
        pair: Option<Encoding>,
        add_special_tokens: bool,
    ) -> Result<Encoding> {
        match pair {
            Some(_) => Err("the model takes one sentence, not a pair".into()),
            None if add_special_tokens => Ok(self.mark(encoding)),
            None => Ok(encoding),
        }
    }

    fn process_encodings(&self, encodings: Vec<Encoding>, add_special_tokens: bool) -> Result<Vec<Encoding>> {
        let process = |encoding| self.process(encoding, None, add_special_tokens);
        encodings.into_iter().map(process).collect()
    }
}

/// The encoding of one special token, which covers no text.
fn special_token(id: u32, piece: &str) -> Encoding {
    let special = 1;
    Encoding::new(
        vec![id],
        vec![0],
        vec![piece.to_owned()],
        vec![None],
        vec![(0, 0)],
        vec![special],
        vec![1],
        Vec::new(),
        Default::default(),
    )
}
