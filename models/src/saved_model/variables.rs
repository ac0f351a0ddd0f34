//! The variables of a SavedModel by their names: an object graph maps the names to keys of the
//! bundle.

use std::collections::{BTreeMap, HashMap};

use super::{SavedModelError, bundle::Bundle};
use crate::{
    proto_file::{Field, ProtoFile, Value},
    weights::is_shape,
};

/// The key of the object graph in the bundle.
const OBJECT_GRAPH: &str = "_CHECKPOINTABLE_OBJECT_GRAPH";
/// The path of `SerializedTensor` in `TrackableObjectGraph`, and its fields.
const ATTRIBUTES: [u64; 2] = [1, 2];
const FULL_NAME: u64 = 2;
const CHECKPOINT_KEY: u64 = 3;
/// The scopes of the variables of the encoder, and of the table.
const SCOPES: [&str; 2] = ["EncoderDNN/", "Embeddings/"];

/// The keys of the parts of each variable.
#[derive(Debug)]
pub(super) struct Variables {
    parts: HashMap<String, BTreeMap<u32, String>>,
    /// Names in other scopes.
    others: Vec<String>,
}

impl Variables {
    /// Reads the names. A bundle without an object graph, as TensorFlow 1 writes it, has the names
    /// as keys.
    pub(super) fn of(bundle: &Bundle) -> Result<Variables, SavedModelError> {
        let mut variables = Variables { parts: HashMap::new(), others: Vec::new() };
        if bundle.shape(OBJECT_GRAPH).is_none() {
            for key in bundle.keys() {
                variables.insert(key, key.to_owned())?;
            }
            return Ok(variables);
        }
        let unreadable = |error| SavedModelError::Proto { file: "its object graph", error };
        let (file, position) = bundle.string(OBJECT_GRAPH)?;
        let mut proto = ProtoFile::new(file).map_err(|error| unreadable(error.into()))?;
        let mut names = Vec::new();
        let visited = proto.visit(position, &ATTRIBUTES, &mut |proto, attribute| {
            let (mut name, mut key) = (String::new(), String::new());
            let mut rest = attribute;
            while let Some(field) = proto.next(&mut rest)? {
                match field {
                    Field { number: FULL_NAME, value: Value::Bytes(value) } => name = proto.string(&value)?,
                    Field { number: CHECKPOINT_KEY, value: Value::Bytes(value) } => {
                        key = proto.string(&value)?;
                    }
                    _ => {}
                }
            }
            names.push((name, key));
            Ok(())
        });
        visited.map_err(unreadable)?;
        for (name, key) in names {
            variables.insert(&name, key)?;
        }
        Ok(variables)
    }

    fn insert(&mut self, full_name: &str, key: String) -> Result<(), SavedModelError> {
        let Some(name) = SCOPES.iter().find_map(|scope| within(full_name, scope)) else {
            self.others.push(full_name.to_owned());
            return Ok(());
        };
        let (name, part) = numbered(name, "part_").unwrap_or((name, 0));
        let previous = self.parts.entry(name.to_owned()).or_default().insert(part, key.clone());
        if previous.is_some_and(|previous| previous != key) {
            return Err(SavedModelError::Duplicate(full_name.to_owned()));
        }
        Ok(())
    }

    /// All names, those of the encoder without the numbers of parts.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.keys().chain(&self.others).map(String::as_str)
    }

    /// The number of shards of a table, `NAME/sharded_0`, `NAME/sharded_1`, …; 0 if there are none.
    pub(super) fn shards(&self, table: &str) -> usize {
        let shards = self.names().filter_map(|name| numbered(name, "sharded_"));
        shards.filter(|(name, _)| *name == table).count()
    }

    /// The values of a variable. The parts are concatenated along the first axis.
    pub(super) fn floats(
        &self,
        bundle: &Bundle,
        name: &str,
        expected: &[i64],
    ) -> Result<Vec<f32>, SavedModelError> {
        let missing = |name: String| SavedModelError::MissingVariable(name);
        let parts = self.parts.get(name).ok_or_else(|| missing(name.to_owned()))?;
        let mut shapes = Vec::new();
        for (expected, (part, key)) in (0..).zip(parts) {
            if *part != expected {
                return Err(missing(format!("{name}/part_{expected}")));
            }
            shapes.push(bundle.shape(key).ok_or_else(|| missing(name.to_owned()))?);
        }
        let found =
            concatenated(&shapes).ok_or_else(|| SavedModelError::PartShapes { name: name.to_owned() })?;
        if !is_shape(&found, expected) {
            let (name, expected) = (name.to_owned(), expected.to_vec());
            return Err(SavedModelError::Shape { name, found, expected });
        }
        // The expected shape limits these numbers.
        let mut values = vec![0.0; count(expected)];
        let mut rest = values.as_mut_slice();
        for (shape, key) in shapes.iter().zip(parts.values()) {
            let (part, others) = rest.split_at_mut(count(shape));
            bundle.read_floats(key, part)?;
            rest = others;
        }
        Ok(values)
    }
}

/// A name from a scope on: variables may be in outer scopes.
fn within<'name>(name: &'name str, scope: &str) -> Option<&'name str> {
    name.match_indices(scope)
        .map(|(at, _)| at)
        .find(|at| *at == 0 || name[..*at].ends_with('/'))
        .map(|at| &name[at..])
}

/// The name and the number of `NAME/LABEL_NUMBER`.
fn numbered<'name>(name: &'name str, label: &str) -> Option<(&'name str, u32)> {
    let (name, last) = name.rsplit_once('/')?;
    let digits = last.strip_prefix(label)?;
    // No signs, which `parse` accepts.
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()?;
    Some((name, number))
}

/// The shape of the concatenation along the first axis, if there is one.
fn concatenated(shapes: &[Vec<i64>]) -> Option<Vec<i64>> {
    if let [shape] = shapes {
        return Some(shape.clone());
    }
    let (_, rest) = shapes.first()?.split_first()?;
    let mut total = 0_i64;
    for shape in shapes {
        let (size, own_rest) = shape.split_first()?;
        if *size < 0 || own_rest != rest {
            return None;
        }
        total = total.checked_add(*size)?;
    }
    Some(std::iter::once(total).chain(rest.iter().copied()).collect())
}

fn count(shape: &[i64]) -> usize {
    shape.iter().map(|size| usize::try_from(*size).unwrap_or(0)).product()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_numbers_are_separated_from_names() {
        assert_eq!(numbered("a/kernel/part_16", "part_"), Some(("a/kernel", 16)));
        assert_eq!(numbered("a/sharded_0", "sharded_"), Some(("a", 0)));
        for other in ["a/kernel", "a/part_", "a/part_+1", "a/part_1x", "part_1", "a/part_99999999999"] {
            assert_eq!(numbered(other, "part_"), None, "{other}");
        }
    }

    #[test]
    fn outer_scopes_of_names_are_ignored() {
        assert_eq!(within("EncoderDNN/x", "EncoderDNN/"), Some("EncoderDNN/x"));
        assert_eq!(within("a/b/EncoderDNN/x", "EncoderDNN/"), Some("EncoderDNN/x"));
        assert_eq!(within("MyEncoderDNN/x", "EncoderDNN/"), None);
        assert_eq!(within("MyEncoderDNN/EncoderDNN/x", "EncoderDNN/"), Some("EncoderDNN/x"));
    }

    #[test]
    fn parts_are_concatenated_along_the_first_axis() {
        let shape =
            |parts: &[&[i64]]| concatenated(&parts.iter().map(|part| part.to_vec()).collect::<Vec<_>>());
        assert_eq!(shape(&[&[2, 3], &[1, 3], &[0, 3]]), Some(vec![3, 3]));
        assert_eq!(shape(&[&[]]), Some(vec![]));
        for invalid in [&[&[2, 3][..], &[2, 4]][..], &[&[2], &[-2]], &[&[], &[]], &[&[i64::MAX], &[1]], &[]] {
            assert_eq!(shape(invalid), None, "{invalid:?}");
        }
    }
}
