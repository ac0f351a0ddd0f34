//! Tensors on their way to a device and back.

use tch::{Device, Kind, TchError, Tensor};

/// A tensor of the host on `device`. To a CUDA device it is copied from pinned memory, which lets the copy go on while this
/// thread queues the kernels behind it; libtorch keeps that memory until the copy is done.
pub(crate) fn to_device(tensor: Tensor, device: Device) -> Result<Tensor, TchError> {
    if !device.is_cuda() {
        return Ok(tensor);
    }
    let kind = tensor.f_kind()?;
    pinned(&tensor, device)?.f_to_device_(device, kind, true, false)
}

/// A tensor as contiguous float32 on the host, once it is computed. From a CUDA device it comes through pinned memory, which is
/// got while the device computes.
pub(crate) fn to_host(tensor: Tensor) -> Result<Tensor, TchError> {
    let tensor = tensor.f_to_kind(Kind::Float)?.f_contiguous()?;
    let device = tensor.device();
    if !device.is_cuda() {
        return Ok(tensor);
    }
    let mut host = pinned(&Tensor::f_empty(tensor.size(), (Kind::Float, Device::Cpu))?, device)?;
    // Waits for this stream alone, and reports what went wrong in it, where a synchronisation of the device would panic.
    host.f_copy_(&tensor)?;
    Ok(host)
}

// The public name takes the device, too, and warns each time that it is deprecated there. libtorch keeps the memory of
// earlier calls, so that a pass does not have to pin new pages.
fn pinned(tensor: &Tensor, device: Device) -> Result<Tensor, TchError> {
    tensor.f_internal_pin_memory(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_the_cpu_nothing_is_copied() {
        let tensor = Tensor::from_slice(&[1.0_f32, 2.0]);
        let data = tensor.data_ptr();
        let there = to_device(tensor, Device::Cpu).unwrap();
        assert_eq!(there.data_ptr(), data);
        assert_eq!(to_host(there).unwrap().data_ptr(), data);
    }

    #[test]
    fn what_comes_back_is_contiguous_float32() {
        let tensor = Tensor::from_slice(&[1_i64, 2, 3, 4]).view([2, 2]).transpose(0, 1);
        let host = to_host(tensor).unwrap();
        assert!(host.is_contiguous());
        assert_eq!(Vec::<f32>::try_from(host.view([4])).unwrap(), [1.0, 3.0, 2.0, 4.0]);
    }
}
