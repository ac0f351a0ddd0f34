//! The device that runs the model.
//!
//! The programs are linked with the CPU part of libtorch only, so that they start on any machine.
//! The CUDA part, `libtorch_cuda.so`, registers itself with the CPU part when it is loaded, and
//! libtorch checks the registration once: so it is loaded here, before the first tensor, and only
//! if a driver is found and CUDA is requested. Neither library is unloaded.

mod driver;
mod library;

use std::{fmt, str::FromStr, sync::OnceLock};

use tch::{Cuda, Device, Kind, Tensor};
use tracing::info;

pub use driver::Card;

/// The value of `--device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The first CUDA device if there is one that libtorch can use, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of this number, among those that `CUDA_VISIBLE_DEVICES` makes visible.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let index = match text {
            "auto" => return Ok(Self::Auto),
            "cpu" => return Ok(Self::Cpu),
            "cuda" => "0",
            other => other.strip_prefix("cuda:").unwrap_or_default(),
        };
        // libtorch counts devices in a signed byte.
        let index = index.bytes().all(|byte| byte.is_ascii_digit()).then(|| index.parse::<usize>().ok());
        match index.flatten() {
            Some(index @ 0..=127) => Ok(Self::Cuda(index)),
            _ => Err("must be auto, cpu, cuda or cuda:N".to_owned()),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(index) => write!(formatter, "cuda:{index}"),
        }
    }
}

/// Why a CUDA device cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// There is no driver library, or it does not start.
    #[error("there is no working NVIDIA driver: {0}")]
    Driver(String),
    /// The CUDA part of libtorch is missing, or lacks a library or a symbol.
    #[error("libtorch's CUDA library cannot be loaded: {0}")]
    Library(String),
    /// There is a driver, but no device.
    #[error("there is no CUDA device to be seen (CUDA_VISIBLE_DEVICES is {})", .0.as_deref().unwrap_or("not set"))]
    NoneVisible(Option<String>),
    /// There are fewer devices.
    #[error("there is no cuda:{requested}: {count} CUDA device(s) can be seen, counted from 0")]
    OutOfRange {
        /// The requested number.
        requested: usize,
        /// The number of devices.
        count: usize,
    },
    /// The device does not work.
    #[error("cuda:{index} cannot be used: {error}")]
    Unusable {
        /// Its number.
        index: usize,
        /// The message of libtorch.
        error: String,
    },
}

/// Resolves a choice on this machine. Call it before the first tensor is created.
///
/// The result of `auto` is cached for the process, and logged once.
///
/// # Errors
///
/// If a requested CUDA device cannot be used: there is no fallback. `auto` and `cpu` never fail.
pub fn resolve(choice: DeviceChoice) -> Result<Device, DeviceError> {
    static AUTO: OnceLock<Device> = OnceLock::new();
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Cuda(index) => cuda(index),
        DeviceChoice::Auto => Ok(*AUTO.get_or_init(|| {
            cuda(0).unwrap_or_else(|reason| {
                info!("running on the CPU: {reason}");
                Device::Cpu
            })
        })),
    }
}

fn cuda(index: usize) -> Result<Device, DeviceError> {
    // The driver first: its library is small, while libtorch's takes seconds and hundreds of
    // megabytes.
    let count = driver::start()?.count();
    if count == 0 {
        return Err(DeviceError::NoneVisible(std::env::var("CUDA_VISIBLE_DEVICES").ok()));
    }
    if index >= count {
        return Err(DeviceError::OutOfRange { requested: index, count });
    }
    library::load()?;
    let unusable = |error: String| Err(DeviceError::Unusable { index, error });
    if usize::try_from(Cuda::device_count()).is_ok_and(|visible| index >= visible) {
        return unusable("libtorch does not see it".to_owned());
    }
    let device = Device::Cuda(index);
    // A card may be too old for this libtorch, or in exclusive use by another process.
    let sum = || Tensor::f_ones([2], (Kind::Float, device))?.f_sum(Kind::Float)?.f_double_value(&[]);
    match sum() {
        Ok(2.0) => Ok(device),
        Ok(other) => unusable(format!("one and one make {other} there")),
        Err(error) => unusable(crate::error::first_line(&error)),
    }
}

/// The name of a device: `cpu`, `cuda:0`.
#[must_use]
pub fn name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        Device::Cpu => "cpu".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// The properties of a CUDA device that [`resolve`] returned, from the driver.
#[must_use]
pub fn card(device: Device) -> Option<Card> {
    let Device::Cuda(index) = device else { return None };
    driver::card(index)
}

/// The best number of concurrent passes on a device, each on a thread of its own.
///
/// On a CPU it is one for each of the `threads`: passes on one core each do not wait for one
/// another, while the threads of one pass wait for the slowest at the end of each kernel. On a CUDA
/// device it is two: libtorch only queues kernels there, so that while one pass computes, the input
/// of the other is copied to the card and its kernels are queued, and its vectors are copied back
/// and split while the next one computes.
///
/// Both use the default stream of the device, since tch cannot create streams, so that their
/// kernels do not overlap. They need not: a batch of thousands of tokens keeps a card busy.
#[must_use]
pub fn passes_in_flight(device: Device, threads: usize) -> usize {
    if device.is_cuda() { 2 } else { threads }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_choices_parse_and_print() {
        let parse = |text: &str| text.parse::<DeviceChoice>();
        assert_eq!(parse("auto"), Ok(DeviceChoice::Auto));
        assert_eq!(parse("cpu"), Ok(DeviceChoice::Cpu));
        assert_eq!(parse("cuda"), Ok(DeviceChoice::Cuda(0)));
        assert_eq!(parse("cuda:3"), Ok(DeviceChoice::Cuda(3)));
        for text in ["auto", "cpu", "cuda:0", "cuda:127"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        for text in ["", "gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda:128", "cuda0", "cpu:0"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn missing_cuda_device_is_an_error_and_auto_is_the_cpu() {
        if driver::start().is_ok() {
            muse_test_support::skip(muse_test_support::Requirement::NoNvidiaDriver, "there is one");
            return;
        }
        assert_eq!(resolve(DeviceChoice::Cpu), Ok(Device::Cpu));
        assert_eq!(resolve(DeviceChoice::Auto), Ok(Device::Cpu));
        let error = resolve(DeviceChoice::Cuda(0)).unwrap_err();
        assert!(matches!(error, DeviceError::Driver(_)), "{error:?}");
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
        assert_eq!(card(Device::Cpu), None);
        // No library of CUDA was loaded.
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(!maps.contains("libtorch_cuda"));
    }
}
