//! Values with a unit: spans of time and sizes in bytes.

use std::time::Duration;

use super::problem::Mistake;
use crate::model::Age;

const FOREVER: &str = "forever";

/// Each unit of time in milliseconds, the largest first.
const TIME_UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Each unit of size in bytes, the largest first.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

/// Far beyond any retention, and as milliseconds far below `i64::MAX`.
const LONGEST_MILLIS: u64 = 10_000 * 365 * 86_400_000;

/// A whole number and one of ms, s, m, h, d, w, y (365 days); at most 10 000 years.
pub fn parse_span(text: &str) -> Result<Duration, Mistake> {
    let millis = number_of(text, |unit| TIME_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, size)| *size));
    match millis {
        Some(millis) if millis <= LONGEST_MILLIS => Ok(Duration::from_millis(millis)),
        Some(_) => Err(Mistake::new(format!("\"{text}\" is longer than 10000 years"))),
        None if text == FOREVER => {
            Err(Mistake::new("this span must have an end").help("write a number and a unit, as in \"24h\""))
        }
        None => Err(Mistake::new(format!("\"{text}\" is no span of time"))
            .help("write a whole number and one of ms, s, m, h, d, w, y, as in \"90s\", \"12h\", \"3d\"")),
    }
}

/// [`parse_span`], or `forever`.
pub fn parse_age(text: &str) -> Result<Age, Mistake> {
    if text == FOREVER {
        return Ok(Age::Forever);
    }
    parse_span(text).map(Age::For).map_err(|mistake| match mistake.help {
        Some(help) => Mistake::new(mistake.what).help(help + ", or \"forever\""),
        None => mistake,
    })
}

/// A whole number and one of B, KB … TB (powers of 1000), KiB … TiB (powers of 1024), in any case.
pub fn parse_size(text: &str) -> Result<u64, Mistake> {
    let unit_size =
        |unit: &str| SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, size)| *size);
    number_of(text, unit_size).ok_or_else(|| {
        Mistake::new(format!("\"{text}\" is no size"))
            .help("write a whole number and one of B, KiB, MiB, GiB, TiB, KB, MB, GB, TB, as in \"64MiB\"")
    })
}

/// A whole number from 0 to 100 and a percent sign.
pub fn parse_percent(text: &str) -> Result<u8, Mistake> {
    let percent = text.strip_suffix('%').and_then(|number| number.trim_end().parse().ok());
    percent.filter(|percent| *percent <= 100).ok_or_else(|| {
        Mistake::new(format!("\"{text}\" is no share")).help("write a whole number and a percent sign, as in \"50%\"")
    })
}

/// The text that [`parse_span`] reads, in the largest unit that divides it.
pub fn show_span(span: Duration) -> String {
    show(u64::try_from(span.as_millis()).unwrap_or(u64::MAX), &TIME_UNITS, "s")
}

/// The text that [`parse_age`] reads.
pub fn show_age(age: Age) -> String {
    match age {
        Age::For(span) => show_span(span),
        Age::Forever => FOREVER.to_owned(),
    }
}

/// The text that [`parse_size`] reads, in the largest unit that divides it.
pub fn show_size(bytes: u64) -> String {
    show(bytes, &SIZE_UNITS, "B")
}

fn number_of(text: &str, unit_size: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    number.parse::<u64>().ok()?.checked_mul(unit_size(unit.trim_start())?)
}

fn show(amount: u64, units: &[(&str, u64)], unit_of_zero: &str) -> String {
    match units.iter().find(|(_, size)| amount > 0 && amount.is_multiple_of(*size)) {
        Some((unit, size)) => format!("{}{unit}", amount / size),
        None => format!("{amount}{unit_of_zero}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        let check = |text: &str, millis: u64| assert_eq!(parse_span(text), Ok(Duration::from_millis(millis)), "{text}");
        check("0s", 0);
        check("250ms", 250);
        check("90 s", 90_000);
        check("5m", 300_000);
        check("24h", 86_400_000);
        check("3d", 3 * 86_400_000);
        check("2w", 14 * 86_400_000);
        check("7y", 7 * 365 * 86_400_000);
        for bad in ["", "3", "d", "3x", "3D", "-1d", "1.5h", "1h30m", "10001y", "99999999999999999999d", "٣d", FOREVER]
        {
            assert!(parse_span(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_age("forever"), Ok(Age::Forever));
        assert_eq!(parse_age("1d"), Ok(Age::For(Duration::from_secs(86_400))));
    }

    #[test]
    fn sizes() {
        let check = |text: &str, bytes: u64| assert_eq!(parse_size(text), Ok(bytes), "{text}");
        check("0B", 0);
        check("1kib", 1024);
        check("64MiB", 64 << 20);
        check("1GB", 1_000_000_000);
        check("2 TiB", 2 << 40);
        for bad in ["", "64", "MiB", "64M", "1.5GiB", "99999999TiB", "-1B"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn percents() {
        assert_eq!((parse_percent("0%"), parse_percent("50 %"), parse_percent("100%")), (Ok(0), Ok(50), Ok(100)));
        for bad in ["", "50", "%", "101%", "-1%", "0.5%"] {
            assert!(parse_percent(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_shown_is_read_again() {
        for text in ["0s", "250ms", "90s", "3d", "7y", "1w"] {
            assert_eq!(parse_span(text).map(show_span).as_deref(), Ok(text));
        }
        for text in ["0B", "1000B", "1MiB", "3GB"] {
            let shown = parse_size(text).map(show_size).expect("a size");
            assert_eq!(parse_size(&shown), parse_size(text), "{text}");
        }
    }
}
