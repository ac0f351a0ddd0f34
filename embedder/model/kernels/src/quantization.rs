//! Quantisation of matrices to signed 8-bit integers.

use tch::{Kind, TchError, Tensor};

/// The largest absolute value of a code. The quantisation is symmetric: -128 is not used.
const LARGEST: f64 = 127.0;
/// Rows of a matrix of the original: several may be concatenated, each with a scale of its own.
const ROWS: i64 = 256;
/// Activations that are quantised together, as in `cpp/int8_encoder.h`.
const GROUP: i64 = 128;
/// The largest distance from a code of a weight that was quantised before.
const ROUNDING: f64 = 1e-3;

/// A matrix as integers: the weight is the code times the scale of its row.
#[derive(Debug)]
pub struct QuantizedMatrix {
    /// int8 (outputs, inputs).
    pub codes: Tensor,
    /// float32 (outputs).
    pub scales: Tensor,
}

/// Quantises a float32 matrix (outputs, inputs); the outputs are a multiple of 256.
///
/// If 256 rows are integer multiples of one scale, the largest being 127 times it, as those of an int8
/// model are, then their codes are the integers of that model, and nothing is lost. Otherwise each row gets a scale of its own, so that
/// its largest absolute value is 127.
///
/// # Errors
///
/// If libtorch fails.
pub fn quantize(weight: &Tensor) -> Result<QuantizedMatrix, TchError> {
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for block in weight.f_split(ROWS, 0)? {
        let magnitudes = block.f_abs()?;
        let shared = (magnitudes.f_max()? / LARGEST).f_expand([block.size()[0], 1], false)?;
        let exact = block.f_divide(&nonzero(&shared)?)?;
        let distance = (&exact - exact.f_round()?).f_abs()?.f_max()?.f_double_value(&[])?;
        let of_rows =
            if distance < ROUNDING { shared } else { magnitudes.f_amax([1].as_slice(), true)? / LARGEST };
        let rounded = block.f_divide(&nonzero(&of_rows)?)?.f_round()?.f_clamp(-LARGEST, LARGEST)?;
        codes.push(rounded.f_to_kind(Kind::Int8)?);
        scales.push(of_rows.f_reshape([-1])?);
    }
    Ok(QuantizedMatrix {
        codes: Tensor::f_cat(&codes, 0)?,
        scales: Tensor::f_cat(&scales, 0)?.f_to_kind(Kind::Float)?.f_contiguous()?,
    })
}

/// The sums of the codes of each row over each group of inputs that are quantised together: 128, or
/// all 512 of an embedding. float32 (inputs / group, outputs).
pub(crate) fn column_sums(codes: &Tensor) -> Result<Tensor, TchError> {
    let (outputs, inputs) = codes.size2()?;
    // The projection is the only matrix with more outputs than a branch has.
    let group = if outputs > ROWS { inputs } else { GROUP };
    let sums = codes.f_to_kind(Kind::Float)?.f_reshape([outputs, inputs / group, group])?;
    sums.f_sum_dim_intlist([2].as_slice(), false, Kind::Float)?.f_transpose(0, 1)?.f_contiguous()
}

/// Scales without zeros, which those of a matrix of zeros are.
fn nonzero(scales: &Tensor) -> Result<Tensor, TchError> {
    scales.f_clamp_min(f64::from(f32::MIN_POSITIVE))
}
