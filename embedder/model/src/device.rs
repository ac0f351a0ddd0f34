//! Which device the model runs on.
//!
//! The programs are linked with libtorch's CPU half alone, so that they start on any machine. Its CUDA half,
//! `libtorch_cuda.so`, registers itself with the other when it is loaded, and libtorch asks once who has: so it is loaded
//! here, before the first tensor, and only where a driver was found and CUDA is wanted. Neither library is unloaded again.

mod driver;
mod library;

use std::{fmt, str::FromStr, sync::OnceLock};

use tch::{Cuda, Device, Kind, Tensor};
use tracing::info;

pub use driver::Card;

/// What `--device` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The first CUDA device if there is one that libtorch can use, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of this number, counted among those that `CUDA_VISIBLE_DEVICES` leaves visible.
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
    /// No driver library, or one that does not start.
    #[error("there is no working NVIDIA driver: {0}")]
    Driver(String),
    /// libtorch's CUDA half is not there, or lacks something itself.
    #[error("libtorch's CUDA library cannot be loaded: {0}")]
    Library(String),
    /// There is a driver, and no device.
    #[error("there is no CUDA device to be seen (CUDA_VISIBLE_DEVICES is {})", .0.as_deref().unwrap_or("not set"))]
    NoneVisible(Option<String>),
    /// There are fewer devices.
    #[error("there is no cuda:{asked}: {count} CUDA device(s) can be seen, counted from 0")]
    OutOfRange {
        /// The number asked for.
        asked: usize,
        /// How many there are.
        count: usize,
    },
    /// The device does not compute.
    #[error("cuda:{index} cannot be used: {error}")]
    Unusable {
        /// Its number.
        index: usize,
        /// What libtorch said.
        error: String,
    },
}

/// The device that a choice means on this machine. To be called before the first tensor is made.
///
/// What `auto` found does not change while the process lives, and is logged once.
///
/// # Errors
///
/// If a CUDA device was asked for and cannot be used; there is no falling back to another. `auto` and `cpu` never fail.
pub fn resolve(choice: DeviceChoice) -> Result<Device, DeviceError> {
    static AUTO: OnceLock<Device> = OnceLock::new();
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Cuda(index) => cuda(index),
        DeviceChoice::Auto => Ok(*AUTO.get_or_init(|| {
            cuda(0).unwrap_or_else(|lack| {
                info!("running on the CPU: {lack}");
                Device::Cpu
            })
        })),
    }
}

fn cuda(index: usize) -> Result<Device, DeviceError> {
    // The driver is asked first: its library is small, while libtorch's takes seconds and hundreds of megabytes.
    let count = driver::start()?.count();
    if count == 0 {
        return Err(DeviceError::NoneVisible(std::env::var("CUDA_VISIBLE_DEVICES").ok()));
    }
    if index >= count {
        return Err(DeviceError::OutOfRange { asked: index, count });
    }
    library::load()?;
    let unusable = |error: String| Err(DeviceError::Unusable { index, error });
    if usize::try_from(Cuda::device_count()).is_ok_and(|seen| index >= seen) {
        return unusable("libtorch does not see it".to_owned());
    }
    let device = Device::Cuda(index);
    // A card may be too old for this libtorch, or taken by another process.
    let sum = || Tensor::f_ones([2], (Kind::Float, device))?.f_sum(Kind::Float)?.f_double_value(&[]);
    match sum() {
        Ok(2.0) => Ok(device),
        Ok(other) => unusable(format!("one and one make {other} there")),
        Err(error) => unusable(crate::inference::first_line(&error)),
    }
}

/// The name of a device as it is shown to users: `cpu`, `cuda:0`.
#[must_use]
pub fn name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        Device::Cpu => "cpu".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// What the driver says about a CUDA device that [`resolve`] gave.
#[must_use]
pub fn card(device: Device) -> Option<Card> {
    let Device::Cuda(index) = device else { return None };
    driver::card(index)
}

/// Passes that a device wants to be in flight at a time, each from a thread of its own.
///
/// A CPU wants one for each of its `threads`: passes on one core each do not wait for one another, where the threads of
/// one pass wait for the slowest at the end of each kernel. A CUDA device wants two: libtorch only queues kernels there,
/// so that while the one pass computes, the other is copied to the card and queued behind it, and its vectors are copied
/// back and split while the next computes.
///
/// The two share the device's default stream, since tch cannot make streams: kernels of two passes do not run side by
/// side. They need not to keep a card busy, as a batch of thousands of tokens fills it.
#[must_use]
pub fn passes_in_flight(device: Device, threads: usize) -> usize {
    if device.is_cuda() { 2 } else { threads }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_and_written() {
        let read = |text: &str| text.parse::<DeviceChoice>();
        assert_eq!(read("auto"), Ok(DeviceChoice::Auto));
        assert_eq!(read("cpu"), Ok(DeviceChoice::Cpu));
        assert_eq!(read("cuda"), Ok(DeviceChoice::Cuda(0)));
        assert_eq!(read("cuda:3"), Ok(DeviceChoice::Cuda(3)));
        for text in ["auto", "cpu", "cuda:0", "cuda:127"] {
            assert_eq!(read(text).unwrap().to_string(), text);
        }
        for text in ["", "gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda:128", "cuda0", "cpu:0"]
        {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_cuda_device_that_is_not_there_is_an_error_and_auto_is_the_cpu() {
        if driver::start().is_ok() {
            muse_test_support::skip(muse_test_support::Requirement::NoNvidiaDriver, "there is one");
            return;
        }
        assert_eq!(resolve(DeviceChoice::Cpu), Ok(Device::Cpu));
        assert_eq!(resolve(DeviceChoice::Auto), Ok(Device::Cpu));
        let refused = resolve(DeviceChoice::Cuda(0)).unwrap_err();
        assert!(matches!(refused, DeviceError::Driver(_)), "{refused:?}");
        assert_eq!(refused.to_string().lines().count(), 1, "{refused}");
        assert_eq!(card(Device::Cpu), None);
        // Nothing of CUDA was loaded on the way.
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(!maps.contains("libtorch_cuda"));
    }
}
