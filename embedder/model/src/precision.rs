//! The value of `--precision`. `auto` is bf16 if the device supports it, else f32.
//!
//! `auto` is never f16: bf16 is as fast on each device that supports both, and has the range of
//! float32. Nor is it int8, which loses more.

use std::{fs, str::FromStr};

use tch::Device;

use crate::{
    device::{self, Card},
    model_dir::Precision,
};

/// The flags of `/proc/cpuinfo` for arithmetic in bf16, and their names.
const CPU_FLAGS: [(&str, &str); 2] = [("amx_bf16", "AMX"), ("avx512_bf16", "AVX512-BF16")];
/// The lowest compute capability with arithmetic in bf16: Ampere.
const CAPABILITY: (i32, i32) = (8, 0);

/// The value of `--precision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrecisionOption {
    /// bf16 if the device supports it, else f32, by [`choose`].
    Auto,
    /// This one.
    Fixed(Precision),
}

impl FromStr for PrecisionOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Precision::F32, Precision::Bf16, Precision::F16, Precision::Int8];
        match all.into_iter().find(|precision| precision.as_str() == text) {
            Some(precision) => Ok(Self::Fixed(precision)),
            None if text == "auto" => Ok(Self::Auto),
            None => Err("must be f32, bf16, f16, int8 or auto".to_owned()),
        }
    }
}

/// A precision, and the reason for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrecisionChoice {
    /// The precision.
    pub precision: Precision,
    /// The reason, a clause.
    pub reason: String,
}

/// bf16 if a device supports it, else f32.
#[must_use]
pub fn choose(device: Device) -> PrecisionChoice {
    if device == Device::Cpu {
        return of_cpu(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default());
    }
    of_card(&device::name(device), device::card(device).as_ref())
}

fn of_cpu(cpuinfo: &str) -> PrecisionChoice {
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    let found = CPU_FLAGS.iter().find(|(flag, _)| has(flag));
    found.map_or_else(
        || PrecisionChoice {
            precision: Precision::F32,
            reason: "the CPU has neither AMX nor AVX512-BF16".to_owned(),
        },
        |(_, name)| PrecisionChoice { precision: Precision::Bf16, reason: format!("the CPU has {name}") },
    )
}

fn of_card(device: &str, card: Option<&Card>) -> PrecisionChoice {
    let Some(Card { name, capability, .. }) = card else {
        return PrecisionChoice {
            precision: Precision::F32,
            reason: format!("the driver reports nothing about {device}"),
        };
    };
    let (major, minor) = capability;
    let (precision, has) =
        if *capability >= CAPABILITY { (Precision::Bf16, "has") } else { (Precision::F32, "lacks") };
    let reason = format!("{device}, {name}, {has} bf16 (compute capability {major}.{minor})");
    PrecisionChoice { precision, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_parse() {
        assert_eq!("auto".parse(), Ok(PrecisionOption::Auto));
        assert_eq!("int8".parse(), Ok(PrecisionOption::Fixed(Precision::Int8)));
        for text in ["", "F32", "f64", "auto "] {
            assert!(text.parse::<PrecisionOption>().is_err(), "{text}");
        }
    }

    #[test]
    fn cpu_flags_decide_on_bf16() {
        let choice =
            |flags: &str| of_cpu(&format!("processor\t: 0\nflags\t\t: fpu {flags} sse2\nbugs\t\t:\n"));
        assert_eq!(choice("avx512_bf16").precision, Precision::Bf16);
        assert_eq!(choice("avx512_bf16 amx_bf16").reason, "the CPU has AMX");
        assert_eq!(choice("avx512f avx512_vnni").precision, Precision::F32);
        assert_eq!(choice("not_avx512_bf16").precision, Precision::F32);
        assert_eq!(of_cpu("").precision, Precision::F32);
    }

    #[test]
    fn compute_capability_decides_on_bf16() {
        let of = |capability| {
            let card = Card { name: "A Card".to_owned(), capability, driver: String::new() };
            of_card("cuda:0", Some(&card)).precision
        };
        assert_eq!(
            [of((7, 5)), of((8, 0)), of((8, 9)), of((9, 0))].map(Precision::as_str),
            ["f32", "bf16", "bf16", "bf16"]
        );
        assert_eq!(of_card("cuda:0", None).precision, Precision::F32);
    }
}
