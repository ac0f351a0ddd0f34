//! One argument of a REST request: its values, within the limits, and why they are invalid.

use muse_proto::{
    Error, Reason,
    limits::{MAX_REQUEST_BYTES, MAX_SENTENCE_BYTES, MAX_SENTENCES},
};

use super::{
    json_scalar::{python_text, text},
    response::RestError,
};

/// Bytes of the value of a [`Wanted::Json`].
const MAX_OPTION_BYTES: usize = 256;

/// An argument of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The first of its values.
    First(&'static str),
    /// All of its values, which are sentences.
    Sentences(&'static str),
    /// All of its values, which are sentences and must be strings that are not empty. Only in a
    /// JSON body.
    Texts(&'static str),
    /// Its value as JSON. Only in a JSON body.
    Json(&'static str),
}

/// An argument with its values.
#[derive(Debug)]
pub(super) struct Argument {
    pub(super) wanted: Wanted,
    values: Vec<String>,
    /// The number of values, stored or not.
    pub(super) count: usize,
    /// Bytes of the stored values.
    bytes: usize,
    /// Whether the values are items of a list.
    pub(super) is_list: bool,
    /// Why the values are invalid. It is returned when a handler takes them.
    error: Option<Error>,
}

impl Wanted {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::First(name) | Self::Sentences(name) | Self::Texts(name) | Self::Json(name) => name,
        }
    }

    /// The name of its sentences in errors.
    fn field(self) -> &'static str {
        match self {
            Self::Sentences(_) => "sentences",
            other => other.name(),
        }
    }

    pub(super) fn is_only_in_json(self) -> bool {
        matches!(self, Self::Texts(_) | Self::Json(_))
    }
}

impl Argument {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self { wanted, values: Vec::new(), count: 0, bytes: 0, is_list: false, error: None }
    }

    /// Adds a value of a form or of the query.
    pub(super) fn push(&mut self, value: String) {
        if let Some(index) = self.next_index() {
            self.store(index, value);
        }
    }

    /// Adds a value of a JSON body, or an item of a list.
    pub(super) fn push_json(&mut self, json: &str) -> Result<(), serde_json::Error> {
        let Some(index) = self.next_index() else { return Ok(()) };
        match self.wanted {
            Wanted::First(name) | Wanted::Sentences(name) => match python_text(json)? {
                Some(value) => self.store(index, value),
                None => {
                    let text = format!("{name}: a string or a list of strings is expected");
                    self.fail(Error::new(Reason::InvalidArgument, text));
                }
            },
            Wanted::Texts(_) => match text(json, self.is_list)? {
                Ok(value) => self.store(index, value),
                Err(problem) => {
                    let field = self.place(index);
                    let text = format!("{field}: {problem}");
                    self.fail(Error::new(Reason::InvalidArgument, text).with_field(field));
                }
            },
            Wanted::Json(name) if json.len() > MAX_OPTION_BYTES => {
                let text = format!("{name}: {} bytes; the limit is {MAX_OPTION_BYTES}", json.len());
                self.fail(Error::new(Reason::InvalidArgument, text).with_field(name));
            }
            Wanted::Json(_) => self.store(index, json.to_owned()),
        }
        Ok(())
    }

    /// Counts a value, and returns its index if it is to be stored.
    fn next_index(&mut self) -> Option<usize> {
        let index = self.count;
        self.count += 1;
        let most = match self.wanted {
            Wanted::First(_) | Wanted::Json(_) => 1,
            Wanted::Sentences(_) | Wanted::Texts(_) => MAX_SENTENCES,
        };
        (index < most && self.error.is_none()).then_some(index)
    }

    /// The name of a sentence in errors.
    fn place(&self, index: usize) -> String {
        let field = self.wanted.field();
        let is_one = matches!(self.wanted, Wanted::Texts(_)) && !self.is_list;
        if is_one { field.to_owned() } else { format!("{field}[{index}]") }
    }

    /// Stores a value, if it is within the limits of sentences.
    fn store(&mut self, index: usize, value: String) {
        self.bytes += value.len();
        if matches!(self.wanted, Wanted::Sentences(_) | Wanted::Texts(_)) {
            if value.len() > MAX_SENTENCE_BYTES {
                let field = self.place(index);
                let text =
                    format!("{field}: {} bytes; the limit is {MAX_SENTENCE_BYTES} a sentence", value.len());
                return self.fail(Error::new(Reason::TooLarge, text).with_field(field));
            }
            if self.bytes > MAX_REQUEST_BYTES {
                let field = self.wanted.field();
                let text =
                    format!("{field}: {} bytes; the limit is {MAX_REQUEST_BYTES} a request", self.bytes);
                return self.fail(Error::new(Reason::TooLarge, text).with_field(field));
            }
        }
        self.values.push(value);
    }

    fn fail(&mut self, error: Error) {
        self.values = Vec::new();
        self.error = Some(error);
    }

    pub(super) fn take(self) -> Result<Vec<String>, RestError> {
        let is_many = matches!(self.wanted, Wanted::Sentences(_) | Wanted::Texts(_));
        if is_many && self.count > MAX_SENTENCES {
            let field = self.wanted.field();
            let text = format!("{field}: {} sentences; the limit is {MAX_SENTENCES} a request", self.count);
            return Err(Error::new(Reason::TooLarge, text).with_field(field).into());
        }
        match self.error {
            Some(error) => Err(error.into()),
            None if self.values.is_empty() => match self.wanted {
                Wanted::Texts(name) => {
                    let text = format!("{name}: the list is empty; at least one text is needed");
                    Err(Error::new(Reason::InvalidArgument, text).with_field(name).into())
                }
                other => Err(RestError::Blank(other.name())),
            },
            None => Ok(self.values),
        }
    }
}
