//! Numbers of JSON by what they are worth, however many digits they have: a float or an integer of some size would
//! take two long numbers for one.

use std::cmp::Ordering;

use hookyard_plugin::prelude::*;
use serde_json::value::RawValue;

/// A number as `0.digits` times ten to the power of `exponent`.
#[derive(Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "serde_json::Number")]
pub(crate) struct Number {
    is_negative: bool,
    /// Neither begins nor ends with a zero; nothing for zero.
    digits: String,
    /// Zero for zero.
    exponent: i64,
}

impl Number {
    /// The number that a valid JSON text is; none where it is something else.
    pub(crate) fn read(json: &str) -> Option<Number> {
        let unsigned = json.strip_prefix('-').unwrap_or(json);
        if !unsigned.starts_with(|it: char| it.is_ascii_digit()) {
            return None;
        }
        let (mantissa, power) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_start_matches('0');
        let zeros = all.len() - digits.len();
        let digits = digits.trim_end_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Number { is_negative: false, digits, exponent: 0 });
        }
        // What is farther away than any exponent is as far as the farthest.
        let far = if power.starts_with('-') { i64::MIN } else { i64::MAX };
        let places = whole.len() as i64 - zeros as i64;
        let exponent = power.parse().unwrap_or(far).saturating_add(places);
        Some(Number { is_negative: unsigned.len() < json.len(), digits, exponent })
    }

    fn sign(&self) -> i8 {
        match (self.digits.is_empty(), self.is_negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Number) -> Ordering {
        let size = |it: &Number, other: &Number| {
            it.exponent.cmp(&other.exponent).then_with(|| it.digits.cmp(&other.digits))
        };
        self.sign().cmp(&other.sign()).then_with(|| match self.is_negative {
            true => size(other, self),
            false => size(self, other),
        })
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Number) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: serde::Deserializer<'de>>(value: D) -> Result<Number, D::Error> {
        let json: Box<RawValue> = Box::deserialize(value)?;
        Number::read(json.get()).ok_or_else(|| serde::de::Error::custom("must be a number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_worth_what_they_say() {
        let read = |json: &str| Number::read(json).unwrap();
        let rising = [
            "-1e400",
            "-1000",
            "-12.5",
            "-12",
            "-1e-400",
            "0",
            "1e-99999999999999999999999",
            "1e-400",
            "0.01",
            "0.1",
            "0.10000000000000000000000000000001",
            "0.9",
            "1",
            "9",
            "10",
            "10.00000000000000000000000001",
            "123456789012345678901234567890",
            "123456789012345678901234567891",
            "1e400",
            "1e99999999999999999999999",
        ];
        for pair in rising.windows(2) {
            assert!(read(pair[0]) < read(pair[1]), "{pair:?}");
            assert!(read(pair[1]) > read(pair[0]), "{pair:?}");
        }
        for alike in [
            ["10", "10.00"],
            ["10", "1E+1"],
            ["0.1", "1e-1"],
            ["-0", "0.000"],
            ["0e7", "0"],
            ["-12.50", "-0.125e2"],
            ["100000000000000000000000000000", "1e29"],
        ] {
            assert_eq!(read(alike[0]), read(alike[1]), "{alike:?}");
        }
    }

    #[test]
    fn what_is_no_number_is_none() {
        for json in ["null", "true", "\"1\"", "[1]", "{}"] {
            assert_eq!(Number::read(json), None, "{json}");
        }
    }
}
