//! Points in time: DTM and TS (HL7 v2.9 section 2A.2.22), `YYYY[MM[DD[HH[MM[SS[.S[S[S[S]]]]]]]]][+/-ZZZZ]`.

use sealpost_wire::clock::UnixTime;

const SECONDS_PER_DAY: i64 = 86_400;
/// The largest difference from UTC that a zone has (minutes).
const OFFSET_MINUTES_MAX: i16 = 14 * 60;

/// A difference from UTC, east positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UtcOffset {
    minutes: i16,
}

impl UtcOffset {
    /// UTC itself.
    pub const UTC: Self = Self { minutes: 0 };

    /// An offset in minutes, at most 14 hours either way.
    #[must_use]
    pub const fn of_minutes(minutes: i16) -> Option<Self> {
        if minutes >= -OFFSET_MINUTES_MAX && minutes <= OFFSET_MINUTES_MAX {
            Some(Self { minutes })
        } else {
            None
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (sign, digits) = text.split_at_checked(1)?;
        let hours: i16 = digits.get(..2)?.parse().ok()?;
        let minutes: i16 = digits.get(2..)?.parse().ok().filter(|minutes| *minutes < 60)?;
        let plain = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let total = plain.then_some(hours * 60 + minutes)?;
        Self::of_minutes(if sign == "-" { -total } else { total })
    }
}

/// A point in time, as precise as the sender wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp {
    year: i64,
    month: Option<u8>,
    day: Option<u8>,
    /// Hour, minute, second; a minute or second that was left out is zero.
    time: Option<(u8, u8, u8)>,
    offset: Option<UtcOffset>,
}

impl Timestamp {
    /// Reads a timestamp; `None` if the text is not one, or names a day or time that does not exist.
    /// Fractions of a second are dropped.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (local, offset) = match text.find(['+', '-']) {
            Some(at) => (text.get(..at)?, Some(UtcOffset::parse(text.get(at..)?)?)),
            None => (text, None),
        };
        let digits = match local.split_once('.') {
            Some((digits, fraction)) => {
                let plain = (1..=4).contains(&fraction.len()) && fraction.bytes().all(|b| b.is_ascii_digit());
                (plain && digits.len() == 14).then_some(digits)?
            }
            None => local,
        };
        if !matches!(digits.len(), 4 | 6 | 8 | 10 | 12 | 14) || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let pair = |at: usize| digits.get(at..at + 2).and_then(|pair| pair.parse::<u8>().ok());
        let year: i64 = digits.get(..4)?.parse().ok()?;
        let (month, day, hour) = (pair(4), pair(6), pair(8));
        let (minute, second) = (pair(10).unwrap_or(0), pair(12).unwrap_or(0));
        let valid = year > 0
            && month.is_none_or(|month| (1..=12).contains(&month))
            && day.is_none_or(|day| (1..=days_in(year, month.unwrap_or(1))).contains(&day))
            && hour.is_none_or(|hour| hour < 24)
            && minute < 60
            && second < 60;
        valid.then_some(Self { year, month, day, time: hour.map(|hour| (hour, minute, second)), offset })
    }

    /// The difference from UTC that the sender wrote.
    #[must_use]
    pub const fn offset(&self) -> Option<UtcOffset> {
        self.offset
    }

    /// This time with `offset` where the sender wrote none.
    #[must_use]
    pub fn or_offset(self, offset: Option<UtcOffset>) -> Self {
        Self { offset: self.offset.or(offset), ..self }
    }

    /// Seconds since the Unix epoch. A time without an offset counts as UTC, a date as its first second.
    /// `None` before 1970.
    #[must_use]
    pub fn unix(&self) -> Option<UnixTime> {
        let days = days_from_epoch(self.year, self.month.unwrap_or(1), self.day.unwrap_or(1));
        let (hour, minute, second) = self.time.unwrap_or((0, 0, 0));
        let seconds = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
        let offset = i64::from(self.offset.map_or(0, |offset| offset.minutes)) * 60;
        u64::try_from(days * SECONDS_PER_DAY + seconds - offset).ok().map(UnixTime)
    }

    /// As a FHIR `dateTime`. A time of day without an offset is left out: FHIR has none, and a guessed one
    /// would state another moment.
    #[must_use]
    pub fn fhir_date_time(&self) -> String {
        self.fhir_instant().unwrap_or_else(|| {
            let mut text = format!("{:04}", self.year);
            for part in [self.month, self.day].into_iter().flatten() {
                text.push_str(&format!("-{part:02}"));
            }
            text
        })
    }

    /// As a FHIR `instant`, which needs a time of day and an offset.
    #[must_use]
    pub fn fhir_instant(&self) -> Option<String> {
        let (year, month, day) = (self.year, self.month?, self.day?);
        let (hour, minute, second) = self.time?;
        let offset = self.offset?.minutes;
        let (sign, ahead) = if offset < 0 { ('-', -offset) } else { ('+', offset) };
        let (hours, minutes) = (ahead / 60, ahead % 60);
        Some(format!(
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{sign}{hours:02}:{minutes:02}"
        ))
    }
}

fn days_in(year: i64, month: u8) -> u8 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the Gregorian calendar; years are counted from March, so that a leap day ends one.
fn days_from_epoch(year: i64, month: u8, day: u8) -> i64 {
    let month = i64::from(month);
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (153 * month + 2) / 5 + i64::from(day) - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text, seconds since the epoch (from `date -u`), FHIR dateTime.
    const TIMES: [(&str, u64, &str); 9] = [
        ("20141006063000+0700", 1_412_551_800, "2014-10-06T06:30:00+07:00"),
        ("20141006063000.1234-0330", 1_412_589_600, "2014-10-06T06:30:00-03:30"),
        ("202403010000+0000", 1_709_251_200, "2024-03-01T00:00:00+00:00"),
        ("20240229", 1_709_164_800, "2024-02-29"),
        ("20000229235959", 951_868_799, "2000-02-29"),
        ("2024022912Z", 0, ""),
        ("1970", 0, "1970"),
        ("197001", 0, "1970-01"),
        (" 19700101 ", 0, "1970-01-01"),
    ];

    #[test]
    fn times_are_read_as_precisely_as_written() {
        for (text, seconds, fhir) in TIMES {
            let Some(time) = Timestamp::parse(text) else {
                assert_eq!(fhir, "", "{text}");
                continue;
            };
            assert_eq!(time.unix(), Some(UnixTime(seconds)), "{text}");
            assert_eq!(time.fhir_date_time(), fhir, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for bad in [
            "",
            "2",
            "202",
            "20",
            "2024-02-30",
            "20240230",
            "20230229",
            "19000229",
            "20241301",
            "20240100",
            "2024010124",
            "202401011260",
            "20240101000060",
            "20240101000000.",
            "20240101000000.12345",
            "202401010000.5",
            "20240101+01",
            "20240101+01:00",
            "20240101+1500",
            "20240101+1260",
            "20240101++100",
            "0000",
            "２０２４",
            "2024é",
            "20240101-",
        ] {
            assert_eq!(Timestamp::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_missing_offset_is_taken_from_the_message_or_left_out() {
        let local = Timestamp::parse("20240301083000").unwrap();
        assert_eq!(local.fhir_date_time(), "2024-03-01");
        assert_eq!(local.fhir_instant(), None);
        let there = local.or_offset(UtcOffset::of_minutes(60));
        assert_eq!(there.fhir_instant().as_deref(), Some("2024-03-01T08:30:00+01:00"));
        assert_eq!(there.unix().unwrap().0 + 3600, local.unix().unwrap().0);
        assert_eq!(there.or_offset(Some(UtcOffset::UTC)), there);
        assert_eq!(UtcOffset::of_minutes(841), None);
    }

    #[test]
    fn before_the_epoch_there_are_no_seconds() {
        assert_eq!(Timestamp::parse("19691231235959").unwrap().unix(), None);
        assert_eq!(Timestamp::parse("19700101000000+0001").unwrap().unix(), None);
    }
}
