//! The library of the NVIDIA driver, `libcuda.so.1`: whether there is one, and the properties of a
//! card.

use std::{
    ffi::{CStr, c_char, c_int, c_uint},
    fs,
    sync::OnceLock,
};

use libloading::os::unix::{Library, Symbol};

use super::DeviceError;

const LIBRARY: &str = "libcuda.so.1";
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `..._MINOR`.
const CAPABILITY: [c_int; 2] = [75, 76];

/// The properties of a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Its name.
    pub name: String,
    /// Its compute capability, major and minor.
    pub capability: (i32, i32),
    /// The version of the driver, and the newest CUDA that it supports.
    pub driver: String,
}

/// Loads and initialises the driver library, at the first call. It costs little where there is
/// none.
pub(super) fn start() -> Result<&'static Driver, DeviceError> {
    static STARTED: OnceLock<Result<Driver, DeviceError>> = OnceLock::new();
    STARTED.get_or_init(|| Driver::start().map_err(DeviceError::Driver)).as_ref().map_err(Clone::clone)
}

/// The properties of the card with this number.
pub(super) fn card(index: usize) -> Option<Card> {
    start().ok()?.card(c_int::try_from(index).ok()?)
}

/// Functions of the driver API. A status of 0 is success.
pub(super) struct Driver {
    device_get_count: Symbol<unsafe extern "C" fn(*mut c_int) -> c_int>,
    device_get: Symbol<unsafe extern "C" fn(*mut c_int, c_int) -> c_int>,
    device_get_name: Symbol<unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int>,
    device_get_attribute: Symbol<unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int>,
    driver_get_version: Symbol<unsafe extern "C" fn(*mut c_int) -> c_int>,
}

#[expect(unsafe_code, reason = "the driver has a C interface")]
impl Driver {
    fn start() -> Result<Driver, String> {
        // SAFETY: the initialisers of the driver library run in any process, and the signatures are
        // those of cuda.h. The symbols remain valid, as the library is never unloaded.
        unsafe {
            let library = Library::new(LIBRARY).map_err(|error| reason(&error))?;
            let failed = |error: libloading::Error| reason(&error);
            let init: Symbol<unsafe extern "C" fn(c_uint) -> c_int> =
                library.get(b"cuInit").map_err(failed)?;
            let driver = Driver {
                device_get_count: library.get(b"cuDeviceGetCount").map_err(failed)?,
                device_get: library.get(b"cuDeviceGet").map_err(failed)?,
                device_get_name: library.get(b"cuDeviceGetName").map_err(failed)?,
                device_get_attribute: library.get(b"cuDeviceGetAttribute").map_err(failed)?,
                driver_get_version: library.get(b"cuDriverGetVersion").map_err(failed)?,
            };
            std::mem::forget(library);
            match init(0) {
                0 => Ok(driver),
                // CUDA_ERROR_NO_DEVICE, also if CUDA_VISIBLE_DEVICES hides them all: the count is
                // 0.
                100 => Ok(driver),
                status => Err(format!("{LIBRARY} does not start (status {status} of cuInit)")),
            }
        }
    }

    /// The number of visible cards.
    pub(super) fn count(&self) -> usize {
        let mut count = 0;
        // SAFETY: the pointer is to an int that outlives the call.
        let status = unsafe { (self.device_get_count)(&raw mut count) };
        if status == 0 { usize::try_from(count).unwrap_or_default() } else { 0 }
    }

    fn card(&self, index: c_int) -> Option<Card> {
        let (mut device, mut version, mut capability) = (0, 0, [0; 2]);
        let mut name: [c_char; 256] = [0; 256];
        // SAFETY: each pointer is to a value of the type in the signature that outlives the call,
        // and the pointer of the name is to as many bytes as its length argument.
        let succeeded = unsafe {
            (self.device_get)(&raw mut device, index) == 0
                && (self.device_get_name)(name.as_mut_ptr(), name.len() as c_int, device) == 0
                && (self.device_get_attribute)(&raw mut capability[0], CAPABILITY[0], device) == 0
                && (self.device_get_attribute)(&raw mut capability[1], CAPABILITY[1], device) == 0
                && (self.driver_get_version)(&raw mut version) == 0
        };
        if !succeeded {
            return None;
        }
        // SAFETY: the driver terminates the name with a NUL within the length of the array.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
        let [major, minor] = capability;
        let supports = format!("CUDA {}.{}", version / 1000, version % 1000 / 10);
        let driver = kernel_module().map_or(supports.clone(), |module| format!("{module} ({supports})"));
        Some(Card { name, capability: (major, minor), driver })
    }
}

/// The version of the driver's kernel module, if the kernel shows it.
fn kernel_module() -> Option<String> {
    let text = fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let number = |word: &&str| word.contains('.') && word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    text.lines().next()?.split_whitespace().find(number).map(str::to_owned)
}

/// The message of the loader, without that of libloading.
pub(super) fn reason(error: &libloading::Error) -> String {
    use std::error::Error;
    error.source().map_or_else(|| error.to_string(), ToString::to_string).replace('\n', " ")
}
