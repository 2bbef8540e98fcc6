//! Times as people write them, to and from milliseconds since the Unix epoch. UTC, unless the
//! text says otherwise; the proleptic Gregorian calendar.

const DAY_MS: i64 = 86_400_000;

/// Reads a date (`2013-01-31`) or a time (`2013-01-31T10:00:00.250Z`, `2013-01-31 10:00+02:00`).
///
/// # Errors
/// What is expected, if this is neither.
pub(crate) fn parse(text: &str) -> Result<i64, String> {
    try_parse(text).ok_or_else(|| {
        format!("{text:?} is no time: write 2013-01-31, or 2013-01-31T10:00:00Z as in RFC 3339")
    })
}

fn try_parse(text: &str) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let days = days_of(date)?;
    if rest.is_empty() {
        return days.checked_mul(DAY_MS);
    }
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (clock, offset_minutes) = split_zone(rest)?;
    Some(days * DAY_MS + clock_ms(clock)? - offset_minutes * 60_000)
}

fn days_of(date: &str) -> Option<i64> {
    let (year, rest) = date.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    let (year, month, day) = (digits(year, 4)?, digits(month, 2)?, digits(day, 2)?);
    let known = (1..=12).contains(&month) && day >= 1 && day <= days_in_month(year, month);
    known.then(|| days_before(year, month) + day - 1)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from the epoch to the first of a month. Years begin in March here, so that the leap day
/// comes last.
fn days_before(year: i64, month: i64) -> i64 {
    const EPOCH: i64 = 719_468;
    let year = if month <= 2 { year - 1 } else { year };
    let months_since_march = (month + 9) % 12;
    let days_in_year = (153 * months_since_march + 2) / 5;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + days_in_year
        - EPOCH
}

/// The clock's part, and how many minutes its zone is ahead of UTC.
fn split_zone(text: &str) -> Option<(&str, i64)> {
    if let Some(clock) = text.strip_suffix(['Z', 'z']) {
        return Some((clock, 0));
    }
    let Some(at) = text.rfind(['+', '-']) else {
        return Some((text, 0));
    };
    let (clock, zone) = text.split_at(at);
    let (hours, minutes) = zone[1..].split_once(':')?;
    let minutes = digits(hours, 2)? * 60 + digits(minutes, 2)?;
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    Some((clock, sign * minutes))
}

fn clock_ms(clock: &str) -> Option<i64> {
    let mut parts = clock.splitn(3, ':');
    let hours = digits(parts.next()?, 2)?;
    let minutes = digits(parts.next()?, 2)?;
    let seconds_ms = parts.next().map_or(Some(0), seconds_ms)?;
    let known = hours < 24 && minutes < 60 && seconds_ms < 60_000;
    known.then_some((hours * 60 + minutes) * 60_000 + seconds_ms)
}

fn seconds_ms(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: String = fraction.chars().chain("000".chars()).take(3).collect();
    Some(digits(whole, 2)? * 1_000 + digits(&thousandths, 3)?)
}

fn digits(text: &str, count: usize) -> Option<i64> {
    let all_digits = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected_seconds: i64) {
        assert_eq!(parse(text), Ok(expected_seconds * 1_000), "{text}");
    }

    #[test]
    fn dates_and_times() {
        check("1970-01-01", 0);
        check("1969-12-31T23:59:59Z", -1);
        check("2000-02-29", 951_782_400);
        check("2013-01-01T10:00:00Z", 1_357_034_400);
        check("2013-01-01 10:00", 1_357_034_400);
        check("2013-01-01T10:00:00+02:00", 1_357_027_200);
        check("2013-01-01T10:00:00-05:30", 1_357_054_200);
        check("2100-03-01", 4_107_542_400);
        assert_eq!(parse("1970-01-01T00:00:01.25Z"), Ok(1_250));
        assert_eq!(parse("1970-01-01T00:00:00.0019Z"), Ok(1));
    }

    #[test]
    fn what_is_no_time() {
        for text in [
            "",
            "yesterday",
            "2013-02-29",
            "2013-13-01",
            "2013-00-01",
            "2013-01-00",
            "2013-01-01T",
            "2013-01-01T24:00:00Z",
            "2013-01-01T10:60:00Z",
            "2013-01-01T10:00:60Z",
            "2013-01-01T10:00:00.Z",
            "2013-01-01T10:00:00+2",
            "2013-1-1",
            "13-01-0101",
            "2013-01-01T10:00:00+0\u{e9}:00",
            "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
