//! Writes TorchScript modules with named parameters, which stock libtorch and PyTorch load.
//!
//! A trace has no named parameters, only constants; this crate compiles methods from their source.

use std::{
    ffi::{CStr, CString, NulError, c_char, c_int},
    fmt, io,
    os::unix::ffi::OsStrExt,
    path::Path,
};

use tch::{TchError, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn muse_save_module(
        path: *const c_char,
        class_name: *const c_char,
        methods: *const c_char,
        names: *const *const c_char,
        parameters: *const *const C_tensor,
        count: usize,
        system_error: *mut c_int,
    ) -> *mut c_char;
    fn free(memory: *mut c_char);
}

/// Why a module cannot be saved.
#[derive(Debug)]
pub enum SaveError {
    /// The file cannot be written.
    Write(io::Error),
    /// A method does not compile, or libtorch failed.
    Torch(TchError),
}

impl fmt::Display for SaveError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SaveError::Write(error) => error.fmt(formatter),
            SaveError::Torch(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for SaveError {}

/// Writes a TorchScript file: a module named `class_name` with these methods, which are TorchScript
/// source, and parameters. A parameter named `cnn.2.weight` is the attribute `weight` of the
/// submodule `2` of the submodule `cnn`.
///
/// # Errors
///
/// If a method does not compile, or the file cannot be written.
pub fn save(
    path: &Path,
    class_name: &str,
    methods: &str,
    parameters: &[(&str, &Tensor)],
) -> Result<(), SaveError> {
    let text = |text: &[u8]| {
        CString::new(text).map_err(|error: NulError| SaveError::Torch(TchError::Torch(error.to_string())))
    };
    let path = text(path.as_os_str().as_bytes())?;
    let (class_name, methods) = (text(class_name.as_bytes())?, text(methods.as_bytes())?);
    let names = parameters.iter().map(|(name, _)| text(name.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    let name_pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let tensors: Vec<*const C_tensor> = parameters.iter().map(|(_, tensor)| tensor.as_ptr()).collect();
    let mut system_error = 0;
    // SAFETY: the strings and tensors outlive the call, and the lists have `count` elements. An
    // error is memory of malloc, which this function frees.
    unsafe {
        let error = muse_save_module(
            path.as_ptr(),
            class_name.as_ptr(),
            methods.as_ptr(),
            name_pointers.as_ptr(),
            tensors.as_ptr(),
            names.len(),
            &raw mut system_error,
        );
        if error.is_null() {
            return Ok(());
        }
        let text = CStr::from_ptr(error).to_string_lossy().into_owned();
        free(error);
        Err(match system_error {
            0 => SaveError::Torch(TchError::Torch(text)),
            error => SaveError::Write(io::Error::from_raw_os_error(error)),
        })
    }
}
