//! Points in time and spans of it. The domain counts milliseconds since 1970 and seconds; the wire has protobuf's types.

use prost_types::{Duration, Timestamp};

use crate::ConversionError;

/// Milliseconds since 1970 as a timestamp.
pub(crate) fn timestamp(unix_ms: u64) -> Timestamp {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX);
    Timestamp { seconds, nanos: (unix_ms % 1000) as i32 * 1_000_000 }
}

/// A timestamp as milliseconds since 1970.
pub(crate) fn unix_ms(time: Timestamp, field: &str) -> Result<u64, ConversionError> {
    let bad = || ConversionError::bad(field, "a time before 1970, or not a time at all");
    let seconds = u64::try_from(time.seconds).map_err(|_| bad())?;
    let nanos = u64::try_from(time.nanos).map_err(|_| bad())?;
    seconds.checked_mul(1000).and_then(|ms| ms.checked_add(nanos / 1_000_000)).ok_or_else(bad)
}

/// Seconds as a span, to the nanosecond; none when they are negative or not a number.
pub(crate) fn span(seconds: f64) -> Option<Duration> {
    std::time::Duration::try_from_secs_f64(seconds).ok().and_then(|span| span.try_into().ok())
}

/// A span in seconds.
pub(crate) fn seconds(span: Duration) -> f64 {
    span.seconds as f64 + f64::from(span.nanos) * 1e-9
}

/// Milliseconds as a span.
pub(crate) fn span_of_ms(ms: u64) -> Duration {
    let Timestamp { seconds, nanos } = timestamp(ms);
    Duration { seconds, nanos }
}

/// A span in milliseconds.
pub(crate) fn ms(span: Duration, field: &str) -> Result<u64, ConversionError> {
    let span = std::time::Duration::try_from(span)
        .map_err(|_| ConversionError::bad(field, "a negative span of time"))?;
    u64::try_from(span.as_millis()).map_err(|error| ConversionError::bad(field, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_milliseconds() {
        for ms_since_1970 in [0, 1, 999, 1_000, 1_785_542_400_123] {
            assert_eq!(unix_ms(timestamp(ms_since_1970), "t").unwrap(), ms_since_1970);
            assert_eq!(ms(span_of_ms(ms_since_1970), "t").unwrap(), ms_since_1970);
        }
        let early = Timestamp { seconds: -1, nanos: 0 };
        assert_eq!(unix_ms(early, "submit_time").unwrap_err().path, "submit_time");
    }

    #[test]
    fn spans_keep_their_nanoseconds_and_refuse_nonsense() {
        assert!((seconds(span(12.345_678_901).unwrap()) - 12.345_678_901).abs() < 1e-9);
        for nonsense in [-1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(span(nonsense), None, "{nonsense}");
        }
    }
}
