//! Throughput of libtorch's matrix product on this device: the reference for the forward pass,
//! which consists mostly of matrix products.

use std::time::{Duration, Instant};

use tch::{Device, Kind, TchError, Tensor};

/// The product of the widest window layer, for 4,096 tokens: rows, inner size, columns.
const LAYER: [i64; 3] = [4096, 1280, 256];

/// Measured throughput of a matrix product.
pub(crate) struct Product {
    size: [i64; 3],
    /// Floating-point operations per second, or the error.
    flops: Result<f64, String>,
}

impl Product {
    fn measure(device: Device, kind: Kind, size: [i64; 3], time: Duration) -> Self {
        let flops = flops(device, kind, size, time)
            .map_err(|error| error.to_string().lines().next().unwrap_or("no message").to_owned());
        Self { size, flops }
    }

    pub(crate) fn shape(&self) -> String {
        let [rows, inner, columns] = self.size;
        format!("{rows}×{inner} @ {inner}×{columns}")
    }

    pub(crate) fn figure(&self) -> String {
        self.flops.as_ref().map_or_else(|failure| format!("failed: {failure}"), |flops| tera(*flops))
    }

    /// `flops` as a percentage of this product's throughput.
    pub(crate) fn share(&self, flops: f64) -> String {
        self.flops.as_ref().map_or_else(|_| "-".to_owned(), |own| format!("{:.0} %", 100.0 * flops / own))
    }
}

/// Formats a throughput in TFLOP/s.
pub(crate) fn tera(flops: f64) -> String {
    let tera = flops / 1e12;
    if tera < 10.0 { format!("{tera:.3}") } else { format!("{tera:.1}") }
}

/// Measures the product of a layer and that of two square matrices with `side` rows.
pub(crate) fn measure(device: Device, kind: Kind, side: i64, time: Duration) -> [Product; 2] {
    [LAYER, [side; 3]].map(|size| Product::measure(device, kind, size, time))
}

fn flops(device: Device, kind: Kind, size: [i64; 3], time: Duration) -> Result<f64, TchError> {
    let [rows, inner, columns] = size;
    let random = |size: [i64; 2]| Tensor::f_randn(size, (Kind::Float, device))?.f_to_kind(kind);
    // As in the layers: weights of shape (out, in), which libtorch supports on a CPU in all
    // precisions.
    let (left, right) = (random([rows, inner])?, random([columns, inner])?);
    let product = || left.f_linear(&right, None::<&Tensor>);
    // A device may execute products asynchronously; reading an element waits for them.
    let run = |times: u64| {
        let began = Instant::now();
        for _ in 1..times {
            let _ = product()?;
        }
        product()?.f_double_value(&[0, 0])?;
        Ok::<_, TchError>(began.elapsed())
    };
    let mut times = 1;
    let mut took = run(times)?;
    while took < time {
        // At least twice as many: the first runs initialize the kernels.
        times = (times as f64 * (1.1 * time.as_secs_f64() / took.as_secs_f64()).clamp(2.0, 16.0)) as u64;
        took = run(times)?;
    }
    Ok(2.0 * (rows * inner * columns) as f64 * times as f64 / took.as_secs_f64())
}
