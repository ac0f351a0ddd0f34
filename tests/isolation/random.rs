//! Requests with random content from a seed.

use std::{
    env,
    sync::LazyLock,
    time::{SystemTime, UNIX_EPOCH},
};

/// The seed: `ISOLATION_SEED`, or the time.
pub(crate) static SEED: LazyLock<u64> = LazyLock::new(|| {
    let given = env::var("ISOLATION_SEED").ok().map(|seed| seed.parse().expect("ISOLATION_SEED is a number"));
    given.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_secs()))
});
/// Unknown field names, and a mix of known and unknown ones.
const UNKNOWN: [&str; 3] = ["x", "sentences", ""];
const NAMES: [&str; 8] = ["sentence", "input", "model", "username", "user", "dimensions", "x", ""];

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(SEED.max(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }

    /// A random length; short lengths are frequent.
    fn length(&mut self) -> usize {
        let bound = [1, 4, 32, 256, 16_384][self.below(5)];
        self.below(bound)
    }

    fn text(&mut self) -> String {
        let unit = ["a", "a ", "%61", "\\u0061", "é", "漢"][self.below(6)];
        unit.repeat(self.length())
    }

    fn one_of(&mut self, names: &[&'static str]) -> &'static str {
        names[self.below(names.len())]
    }

    fn json_value(&mut self, depth: usize, into: &mut String) {
        match self.below(if depth == 0 { 5 } else { 7 }) {
            0 => into.push_str("null"),
            1 => into.push_str("-1.5e3"),
            2 => into.push_str(&self.below(1 << 30).to_string()),
            3 | 4 => {
                let text = self.text();
                into.push_str(&format!("\"{text}\""));
            }
            5 => {
                into.push('[');
                for number in 0..self.below(8) {
                    into.push_str(if number == 0 { "" } else { "," });
                    self.json_value(depth - 1, into);
                }
                into.push(']');
            }
            _ => {
                into.push('{');
                for number in 0..self.below(8) {
                    into.push_str(if number == 0 { "" } else { "," });
                    into.push_str(&format!("\"{}\":", self.one_of(&NAMES)));
                    self.json_value(depth - 1, into);
                }
                into.push('}');
            }
        }
    }
}

/// An object with random values, mostly of the wrong type.
pub(crate) fn json(size: usize) -> Vec<u8> {
    object("{\"y\":0", &NAMES, size)
}

/// A valid object with additional fields of random values.
pub(crate) fn served_json(size: usize) -> Vec<u8> {
    object("{\"sentence\":\"a\",\"input\":\"a\",\"username\":\"u\"", &UNKNOWN, size)
}

fn object(begin: &str, names: &[&'static str], size: usize) -> Vec<u8> {
    let mut random = Random::new();
    let mut text = begin.to_owned();
    while text.len() < size.saturating_sub(1) {
        let before = text.len();
        text.push_str(&format!(",\"{}\":", random.one_of(names)));
        random.json_value(6, &mut text);
        if text.len() >= size {
            text.truncate(before);
            break;
        }
    }
    text.push('}');
    text.into_bytes()
}

/// A form with fields of random values.
pub(crate) fn form(size: usize) -> Vec<u8> {
    let mut random = Random::new();
    let mut text = String::from("y=0");
    loop {
        let field = format!("&{}={}", random.one_of(&NAMES), random.text());
        if text.len() + field.len() > size {
            return text.into_bytes();
        }
        text.push_str(&field);
    }
}

/// A message of random fields: numbers 1 to 8, all wire types except groups.
pub(crate) fn message(size: usize) -> Vec<u8> {
    let mut random = Random::new();
    let mut bytes = Vec::with_capacity(size);
    loop {
        let before = bytes.len();
        let key = |number: usize, wire: u8| (number as u8) << 3 | wire;
        let number = 1 + random.below(8);
        match random.below(4) {
            0 => bytes.extend([key(number, 0), random.below(128) as u8]),
            1 => {
                bytes.push(key(number, 1));
                bytes.extend([7; 8]);
            }
            2 => {
                bytes.push(key(number, 5));
                bytes.extend([7; 4]);
            }
            _ => {
                let length = random.length();
                bytes.extend([key(number, 2), (length % 128) as u8 | 128, (length / 128) as u8]);
                // Well formed as a text and as a message: varints of field 1.
                bytes.extend([8, 7].iter().cycle().take(length / 2 * 2));
                bytes.resize(bytes.len() + length % 2, b'a');
            }
        }
        if bytes.len() > size {
            bytes.truncate(before);
            return bytes;
        }
    }
}
