//! The wall clock. The only module that reads it; everything else is told what time it is.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "this is the room that reads the clock")]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A time as RFC 3339 text in UTC, with milliseconds.
pub fn rfc3339(ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
    format!("{time:.3}")
}

/// The time that RFC 3339 text says; none where it is not such text to the letter.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    // The parser takes more: times without seconds, offsets without minutes.
    let (date_time, rest) = text.split_at_checked("2026-01-31T12:00:00".len())?;
    let fraction = rest
        .strip_prefix('.')
        .map_or(0, |rest| 1 + rest.bytes().take_while(u8::is_ascii_digit).count());
    let has_shape = |text: &str, shape: &str| {
        text.len() == shape.len()
            && text.bytes().zip(shape.bytes()).all(|(it, like)| match like {
                b'0' => it.is_ascii_digit(),
                b'+' => it == b'+' || it == b'-',
                _ => it.eq_ignore_ascii_case(&like),
            })
    };
    let offset = &rest[fraction..];
    let fits = has_shape(date_time, "0000-00-00T00:00:00")
        && fraction != 1
        && (has_shape(offset, "Z") || has_shape(offset, "+00:00") && &offset[1..] < "24");
    let time = fits.then(|| text.parse::<jiff::Timestamp>().ok()).flatten();
    time.map(jiff::Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read() {
        assert_eq!(rfc3339(1_735_689_600_250), "2025-01-01T00:00:00.250Z");
        assert_eq!(parse_rfc3339("2025-01-01T01:00:00+01:00"), Some(1_735_689_600_000));
        assert_eq!(parse_rfc3339("2025-01-01t00:00:00.2500z"), Some(1_735_689_600_250));
        for wrong in [
            "2025-01-01",
            "2025-01-01T00:00Z",
            "2025-01-01T00:00:00",
            "2025-01-01T00:00:00.Z",
            "2025-01-01 00:00:00Z",
            "2025-01-01T00:00:00+01",
            "2025-01-01T00:00:00+25:00",
            "2025-13-01T00:00:00Z",
            "lunchtime",
        ] {
            assert_eq!(parse_rfc3339(wrong), None, "{wrong}");
        }
    }
}
