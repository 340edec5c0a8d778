//! Names and limits of the kinds of number that tensors hold, as PyTorch calls them.

use tch::Kind;

/// PyTorch's name of a kind: float32, bfloat16.
pub(crate) fn dtype(kind: Kind) -> &'static str {
    match kind {
        Kind::Uint8 => "uint8",
        Kind::Int8 => "int8",
        Kind::Int16 => "int16",
        Kind::Int => "int32",
        Kind::Int64 => "int64",
        Kind::Half => "float16",
        Kind::Float => "float32",
        Kind::Double => "float64",
        Kind::ComplexHalf => "complex32",
        Kind::ComplexFloat => "complex64",
        Kind::ComplexDouble => "complex128",
        Kind::Bool => "bool",
        Kind::QInt8 => "qint8",
        Kind::QUInt8 => "quint8",
        Kind::QInt32 => "qint32",
        Kind::BFloat16 => "bfloat16",
        Kind::Float8e5m2 => "float8_e5m2",
        Kind::Float8e4m3fn => "float8_e4m3fn",
        Kind::Float8e5m2fnuz => "float8_e5m2fnuz",
        Kind::Float8e4m3fnuz => "float8_e4m3fnuz",
    }
}

/// Whether a tensor of this kind can be trained: by way of f32, in which it is computed or from which it is rounded.
pub(crate) fn is_floating(kind: Kind) -> bool {
    matches!(kind, Kind::Half | Kind::BFloat16 | Kind::Float | Kind::Double)
}

/// Whether its numbers can become f32 without losing what they are.
pub(crate) fn is_real(kind: Kind) -> bool {
    let whole = matches!(kind, Kind::Uint8 | Kind::Int8 | Kind::Int16 | Kind::Int | Kind::Int64 | Kind::Bool);
    is_floating(kind) || whole
}

/// The floating kind with the fewest digits.
pub(crate) fn coarsest(kinds: impl Iterator<Item = Kind>) -> Option<Kind> {
    kinds.filter(|kind| is_floating(*kind)).max_by(|a, b| epsilon(*a).total_cmp(&epsilon(*b)))
}

/// The distance from 1 to the next number.
pub(crate) fn epsilon(kind: Kind) -> f64 {
    match kind {
        Kind::BFloat16 => 2f64.powi(-7),
        Kind::Half => 2f64.powi(-10),
        Kind::Double => f64::EPSILON,
        _ => f64::from(f32::EPSILON),
    }
}
