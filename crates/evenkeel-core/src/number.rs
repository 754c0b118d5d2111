//! Numbers as protocols write them, which differs from how Rust writes them.
//!
//! Rust's own parsers accept more: `+3`, and for fractions `1.`, `.5`, `inf` and `NaN`. One side of
//! a protocol may accept such a text while the other does not.

/// Reads `text` as digits: one or more and nothing else, `1*DIGIT` in ABNF (RFC 5234).
///
/// `None` for any other text, and for a number that does not fit into `T`.
///
/// ```
/// use evenkeel::core::number::digits;
///
/// assert_eq!(digits("007"), Some(7_u32));
/// assert_eq!(digits::<u32>("+7"), None);
/// assert_eq!(digits::<u8>("256"), None);
/// ```
pub fn digits<T: TryFrom<u64>>(text: impl AsRef<[u8]>) -> Option<T> {
    let text = text.as_ref();
    if text.is_empty() {
        return None;
    }
    let number = text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    });
    T::try_from(number?).ok()
}

/// Reads `text` as a fraction, as JSON writes numbers (RFC 8259, section 6).
///
/// `None` for any other text, and for a number that does not fit into an `f64`.
///
/// ```
/// use evenkeel::core::number::decimal;
///
/// assert_eq!(decimal("-0.5e1"), Some(-5.0));
/// for text in ["+1", ".5", "1.", "01", "inf", "NaN", "1e999"] {
///     assert_eq!(decimal(text), None, "{text}");
/// }
/// ```
#[must_use]
pub fn decimal(text: &str) -> Option<f64> {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let is_padded = 1 < whole.len() && whole.starts_with('0');
    if is_padded || ![whole, fraction, exponent].into_iter().all(is_digits) {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_consists_of_ascii_digits_only() {
        for (text, number) in [("0", 0), ("18446744073709551615", u64::MAX), ("0003", 3)] {
            assert_eq!(digits(text), Some(number), "{text}");
        }
        for text in ["", "+3", "-3", " 3", "3 ", "3.0", "0x3", "1_000", "18446744073709551616", "٣"]
        {
            assert_eq!(digits::<u64>(text), None, "{text}");
        }
        assert_eq!(digits::<u16>("65535"), Some(u16::MAX));
        assert_eq!(digits::<u16>("65536"), None);
    }

    #[test]
    fn fractions_are_those_of_json() {
        for (text, number) in [("0", 0.0), ("-0.25", -0.25), ("1e3", 1e3), ("1.5E-3", 1.5e-3)] {
            assert_eq!(decimal(text), Some(number), "{text}");
        }
        for text in ["", "-", "--1", "1e", "1e+", "e1", ".", "00", "1.5.2", "infinity", " 1", "1,5"]
        {
            assert_eq!(decimal(text), None, "{text}");
        }
    }
}
