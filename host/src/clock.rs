//! The wall clock. The only module that reads it; everything else is told what time it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Milliseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "this is the room that reads the clock")]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A time as RFC 3339 text in UTC, with milliseconds.
pub fn rfc3339(ms: i64) -> String {
    format!("{:.3}", timestamp(ms))
}

/// A time as `YYYY-MM-DD HH:MM:SS` in UTC.
pub fn date_and_time(ms: i64) -> String {
    timestamp(ms).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A time as HTTP has it (RFC 9110, section 5.6.7).
pub fn http_date(ms: i64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(ms.unsigned_abs()))
}

/// The year and the month of a time in UTC.
pub fn month(ms: i64) -> (i16, i8) {
    let date = timestamp(ms).to_zoned(TimeZone::UTC).date();
    (date.year(), date.month())
}

fn timestamp(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
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
    let time = fits.then(|| text.parse::<Timestamp>().ok()).flatten();
    time.map(Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read() {
        assert_eq!(rfc3339(1_735_689_600_250), "2025-01-01T00:00:00.250Z");
        assert_eq!(date_and_time(1_735_689_600_250), "2025-01-01 00:00:00");
        assert_eq!(http_date(1_735_689_600_250), "Wed, 01 Jan 2025 00:00:00 GMT");
        assert_eq!(month(1_735_689_599_999), (2024, 12));
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
