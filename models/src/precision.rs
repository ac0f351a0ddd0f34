//! `--precision auto`: bf16 where the device computes in it, else f32.
//!
//! f16 is never picked: bf16 is as fast wherever both are, and has float32's range.

use std::fs;

use muse_model::{
    device::{self, Card},
    model_dir::Precision,
};
use tch::Device;

/// Flags of `/proc/cpuinfo` that mean arithmetic in bf16, and what they are called.
const CPU_FLAGS: [(&str, &str); 2] = [("amx_bf16", "AMX"), ("avx512_bf16", "AVX512-BF16")];
/// The lowest compute capability with arithmetic in bf16, Ampere's.
const CAPABILITY: (i32, i32) = (8, 0);

/// A precision, and why it was picked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picked {
    /// The precision.
    pub precision: Precision,
    /// What the device has or lacks, to be read after a comma.
    pub because: String,
}

/// The precision that a device is fast in.
#[must_use]
pub fn pick(device: Device) -> Picked {
    if device == Device::Cpu {
        return of_cpu(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default());
    }
    of_card(&device::name(device), device::card(device).as_ref())
}

fn of_cpu(cpuinfo: &str) -> Picked {
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    let found = CPU_FLAGS.iter().find(|(flag, _)| has(flag));
    found.map_or_else(
        || Picked {
            precision: Precision::F32,
            because: "the CPU has neither AMX nor AVX512-BF16".to_owned(),
        },
        |(_, name)| Picked { precision: Precision::Bf16, because: format!("the CPU has {name}") },
    )
}

fn of_card(device: &str, card: Option<&Card>) -> Picked {
    let Some(Card { name, capability, .. }) = card else {
        return Picked { precision: Precision::F32, because: format!("the driver says nothing of {device}") };
    };
    let (major, minor) = capability;
    let (precision, has) =
        if *capability >= CAPABILITY { (Precision::Bf16, "has") } else { (Precision::F32, "lacks") };
    let because = format!("{device}, {name}, {has} bf16 (compute capability {major}.{minor})");
    Picked { precision, because }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_has_bf16_by_its_flags() {
        let of = |flags: &str| of_cpu(&format!("processor\t: 0\nflags\t\t: fpu {flags} sse2\nbugs\t\t:\n"));
        assert_eq!(of("avx512_bf16").precision, Precision::Bf16);
        assert_eq!(of("avx512_bf16 amx_bf16").because, "the CPU has AMX");
        assert_eq!(of("avx512f avx512_vnni").precision, Precision::F32);
        assert_eq!(of("not_avx512_bf16").precision, Precision::F32);
        assert_eq!(of_cpu("").precision, Precision::F32);
    }

    #[test]
    fn a_card_has_bf16_from_ampere_on() {
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
