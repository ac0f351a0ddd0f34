//! The precision of the forward pass. The parameters in a model directory serve every precision.

use std::{fmt, str::FromStr};

use tch::Kind;

/// The type of the inputs of the matrix products; they accumulate in float32, in int8 in integers.
/// With libtorch's operators the layers after the sum over a sentence are always float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// IEEE single precision.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
    /// 8-bit integers in the projections and convolutions, float32 elsewhere; on CPUs only.
    Int8,
}

impl Precision {
    /// All of them.
    pub const ALL: [Precision; 4] = [Precision::F32, Precision::Bf16, Precision::F16, Precision::Int8];

    /// The name, in options and fingerprints.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
            Precision::Int8 => "int8",
        }
    }

    /// The type of libtorch.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Precision::F32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
            Precision::F16 => Kind::Half,
            Precision::Int8 => Kind::Int8,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Precision, String> {
        let named = Precision::ALL.into_iter().find(|precision| precision.as_str() == text);
        named.ok_or_else(|| "must be f32, bf16, f16 or int8".to_owned())
    }
}

/// The value of `--precision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrecisionOption {
    /// The fastest one on this machine, by a measurement: see [`selection`](crate::selection).
    Auto,
    /// This one.
    Fixed(Precision),
}

impl Default for PrecisionOption {
    fn default() -> PrecisionOption {
        PrecisionOption::Fixed(Precision::F32)
    }
}

impl fmt::Display for PrecisionOption {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PrecisionOption::Auto => formatter.write_str("auto"),
            PrecisionOption::Fixed(precision) => precision.fmt(formatter),
        }
    }
}

impl FromStr for PrecisionOption {
    type Err = String;

    fn from_str(text: &str) -> Result<PrecisionOption, String> {
        if text == "auto" {
            return Ok(PrecisionOption::Auto);
        }
        let fixed = text.parse().map(PrecisionOption::Fixed);
        fixed.map_err(|_| "must be f32, bf16, f16, int8 or auto".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_parse_and_print() {
        for text in ["f32", "bf16", "f16", "int8", "auto"] {
            assert_eq!(text.parse::<PrecisionOption>().unwrap().to_string(), text);
        }
        for text in ["", "F32", "f64", "auto "] {
            assert!(text.parse::<PrecisionOption>().is_err(), "{text}");
        }
        assert!("auto".parse::<Precision>().is_err());
        assert_eq!(PrecisionOption::default().to_string(), "f32");
    }
}
