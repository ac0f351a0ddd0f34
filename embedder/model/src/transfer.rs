//! Copies tensors to a device and back.

use tch::{Device, Kind, TchError, Tensor};

/// Copies a tensor from the host to `device`. The copy to a CUDA device is asynchronous, from
/// pinned memory: meanwhile this thread queues the kernels. libtorch retains that memory until the
/// copy is done.
pub(crate) fn to_device(tensor: Tensor, device: Device) -> Result<Tensor, TchError> {
    if !device.is_cuda() {
        return Ok(tensor);
    }
    let kind = tensor.f_kind()?;
    pinned(&tensor, device)?.f_to_device_(device, kind, true, false)
}

/// Waits for a tensor, and copies it to the host as contiguous float32. From a CUDA device it is
/// copied to pinned memory, which is allocated while the device computes.
pub(crate) fn to_host(tensor: Tensor) -> Result<Tensor, TchError> {
    let tensor = tensor.f_to_kind(Kind::Float)?.f_contiguous()?;
    let device = tensor.device();
    if !device.is_cuda() {
        return Ok(tensor);
    }
    let mut host = pinned(&Tensor::f_empty(tensor.size(), (Kind::Float, Device::Cpu))?, device)?;
    // Waits for this stream only, and returns its errors; a synchronisation of the device would
    // panic.
    host.f_copy_(&tensor)?;
    Ok(host)
}

// The public function has the same argument, and warns at each call that it is deprecated. libtorch
// reuses pinned memory, so that a pass does not pin new pages.
fn pinned(tensor: &Tensor, device: Device) -> Result<Tensor, TchError> {
    tensor.f_internal_pin_memory(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_tensor_is_not_copied() {
        let tensor = Tensor::from_slice(&[1.0_f32, 2.0]);
        let data = tensor.data_ptr();
        let on_device = to_device(tensor, Device::Cpu).unwrap();
        assert_eq!(on_device.data_ptr(), data);
        assert_eq!(to_host(on_device).unwrap().data_ptr(), data);
    }

    #[test]
    fn output_is_contiguous_float32() {
        let tensor = Tensor::from_slice(&[1_i64, 2, 3, 4]).view([2, 2]).transpose(0, 1);
        let host = to_host(tensor).unwrap();
        assert!(host.is_contiguous());
        assert_eq!(Vec::<f32>::try_from(host.view([4])).unwrap(), [1.0, 3.0, 2.0, 4.0]);
    }
}
