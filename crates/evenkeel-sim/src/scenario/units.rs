//! Numbers in scenarios. A value out of bounds is refused with its line.

use std::{fmt, marker::PhantomData, time::Duration};

use serde::{Deserialize, Deserializer, de};

/// A duration, written `"250us"`, `"1.5s"` or `0`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Duration);

impl Time {
    /// The duration in seconds.
    #[must_use]
    pub fn seconds(self) -> f64 {
        self.0.as_secs_f64()
    }

    /// The duration in nanoseconds.
    #[must_use]
    pub fn nanos(self) -> u64 {
        crate::time::nanos(self.0)
    }

    /// A duration of this many milliseconds.
    #[must_use]
    pub fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

fn parse_time(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(at);
    let seconds = match unit.trim_start() {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "min" => 60.0,
        "h" => 3_600.0,
        _ => return None,
    };
    let nanos = (number.parse::<f64>().ok()? * seconds * 1e9).round();
    // Longer than a year is a mistake.
    (nanos < 3.2e16).then(|| Duration::from_nanos(nanos as u64))
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Time;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"250us\", \"10ms\", \"1.5s\" or 0")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Time, E> {
                let time = parse_time(text);
                time.map(Time).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Time, E> {
                let error = || E::invalid_value(de::Unexpected::Signed(number), &self);
                if number == 0 { Ok(Time(Duration::ZERO)) } else { Err(error()) }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A number within the bounds `B`.
#[derive(Clone, Copy, PartialEq)]
pub struct Within<B>(pub f64, PhantomData<B>);

impl<B: Bounds> Within<B> {
    /// A number, from code.
    ///
    /// # Panics
    /// If it is out of bounds.
    #[must_use]
    pub fn new(number: f64) -> Self {
        assert!(B::holds(number), "{number} is not {}", B::WHAT);
        Self(number, PhantomData)
    }
}

impl<B> fmt::Debug for Within<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The bounds of a number.
pub trait Bounds {
    /// The bounds in words.
    const WHAT: &'static str;

    /// Whether the number is within the bounds.
    fn holds(number: f64) -> bool;
}

/// Above zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AboveZero;

impl Bounds for AboveZero {
    const WHAT: &'static str = "a number above 0";

    fn holds(number: f64) -> bool {
        0.0 < number && number.is_finite()
    }
}

/// From 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpToOne;

impl Bounds for UpToOne {
    const WHAT: &'static str = "a share from 0 to 1";

    fn holds(number: f64) -> bool {
        (0.0..=1.0).contains(&number)
    }
}

/// Zero or more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NotNegative;

impl Bounds for NotNegative {
    const WHAT: &'static str = "a number from 0 on";

    fn holds(number: f64) -> bool {
        0.0 <= number && number.is_finite()
    }
}

/// Above one, for shapes of tails that have a mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AboveOne;

impl Bounds for AboveOne {
    const WHAT: &'static str = "a number above 1";

    fn holds(number: f64) -> bool {
        1.0 < number && number.is_finite()
    }
}

/// A number above 0.
pub type Positive = Within<AboveZero>;

/// A number from 0 to 1.
pub type Share = Within<UpToOne>;

/// A number from 0 on.
pub type Factor = Within<NotNegative>;

impl<'de, B: Bounds> Deserialize<'de> for Within<B> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        if B::holds(number) {
            Ok(Self(number, PhantomData))
        } else {
            Err(de::Error::invalid_value(de::Unexpected::Float(number), &B::WHAT))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_their_units() {
        for (text, nanos) in
            [("250us", 250_000), ("1.5s", 1_500_000_000), ("10 ms", 10_000_000), ("0", 0)]
        {
            assert_eq!(parse_time(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
        for text in ["", "5", "s", "-1s", "1x", "1.2.3s", "99999999h"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }
}
