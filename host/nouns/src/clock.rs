//! The wall clock. The only module that reads it; everything else is told what time it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::SignedDuration;
use jiff::civil::{DateTime, datetime};

const EPOCH: DateTime = datetime(1970, 1, 1, 0, 0, 0, 0);
const FIRST: DateTime = datetime(0, 1, 1, 0, 0, 0, 0);

/// Milliseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "this is the room that reads the clock")]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A time as RFC 3339 text in UTC, with milliseconds.
pub fn rfc3339(ms: i64) -> String {
    format!("{:.3}Z", utc(ms))
}

/// A time as `YYYY-MM-DD HH:MM:SS` in UTC.
pub fn date_and_time(ms: i64) -> String {
    utc(ms).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A time as HTTP has it (RFC 9110, section 5.6.7).
pub fn http_date(ms: i64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(ms.unsigned_abs()))
}

/// The year and the month of a time in UTC.
pub fn month(ms: i64) -> (i16, i8) {
    let date = utc(ms);
    (date.year(), date.month())
}

/// A time in UTC; the first or the last one of RFC 3339, which has the years 0000 to 9999, where it is beyond them.
fn utc(ms: i64) -> DateTime {
    EPOCH.saturating_add(SignedDuration::from_millis(ms)).max(FIRST)
}

/// The time that RFC 3339 text says; none where it is not such text to the letter. Of a fraction of a second, which may
/// have any number of digits, the milliseconds count.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let (date_time, rest) = text.split_at_checked("2026-01-31T12:00:00".len())?;
    if !has_shape(date_time, "0000-00-00T00:00:00") {
        return None;
    }
    let digits = rest.strip_prefix('.').map(|rest| {
        let end = rest.bytes().take_while(u8::is_ascii_digit).count();
        &rest[..end]
    });
    let millis = match digits {
        Some("") => return None,
        Some(digits) => format!("{:0<3.3}", digits).parse::<i64>().ok()?,
        None => 0,
    };
    let offset = &rest[digits.map_or(0, |it| 1 + it.len())..];
    // A leap second is the second before it.
    let since = date_time.parse::<DateTime>().ok()?.duration_since(EPOCH);
    i64::try_from(since.as_millis()).ok()?.checked_add(millis - offset_ms(offset)?)
}

/// How far the local time of an offset is ahead of UTC.
fn offset_ms(offset: &str) -> Option<i64> {
    if has_shape(offset, "Z") {
        return Some(0);
    }
    let (hours, minutes) = has_shape(offset, "+00:00").then(|| offset[1..].split_once(':'))??;
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    let ahead = (hours < 24 && minutes < 60).then_some((60 * hours + minutes) * 60_000)?;
    Some(if offset.starts_with('-') { -ahead } else { ahead })
}

/// Whether a text has a digit for each `0`, a sign for each `+`, and otherwise these letters in any case.
fn has_shape(text: &str, shape: &str) -> bool {
    text.len() == shape.len()
        && text.bytes().zip(shape.bytes()).all(|(it, like)| match like {
            b'0' => it.is_ascii_digit(),
            b'+' => it == b'+' || it == b'-',
            _ => it.eq_ignore_ascii_case(&like),
        })
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
        for (text, shown) in [
            ("9999-12-31T23:59:59.9999999999999Z", "9999-12-31T23:59:59.999Z"),
            ("9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59.999Z"),
            ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00.000Z"),
            ("0000-01-01T00:00:00+12:30", "0000-01-01T00:00:00.000Z"),
            ("0001-02-03T04:05:06.7-00:00", "0001-02-03T04:05:06.700Z"),
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.000Z"),
            ("2022-03-01T10:00:00.0004+05:30", "2022-03-01T04:30:00.000Z"),
        ] {
            assert_eq!(parse_rfc3339(text).map(rfc3339).as_deref(), Some(shown), "{text}");
        }
        assert_eq!(
            date_and_time(parse_rfc3339("9999-12-31T23:59:59Z").unwrap()),
            "9999-12-31 23:59:59"
        );
        for wrong in [
            "2025-01-01T00:00:00+00:60",
            "2025-02-29T00:00:00Z",
            "2025-01-01T00:00:00.1",
            "2025-01-01T00:00:00.1 Z",
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
