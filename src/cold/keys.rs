//! The names of objects, built and parsed here and nowhere else.
//!
//! ```text
//! v1/app={app}/rule={rule}/finished={YYYY-MM-DD}/{ulid}.ndjson.zst   a segment
//! v1/marks/{ulid}.json                                               a delete or a hold
//! v1/cluster.json                                                    whose bucket this is
//! files/{folder}/{name}.json                                         a file kept for another system: where its bytes are
//! files/{folder}/{ulid}.bin                                          its bytes
//! ```
//!
//! A [`Key`] is relative to the prefix that the store was opened with. The `name=value` folders are
//! what DuckDB, ClickHouse and Hive call partitions, so a query can name an app or a day and read
//! nothing else. App names hold any text, so every byte outside of letters, digits, `-`, `_` and
//! `.` (not in front) is percent-encoded: such keys are valid, and equal, on every store.
//!
//! A local folder allows 255 bytes per name and S3 1024 per key, an app name may have 255 bytes
//! before encoding; so an encoded name above [`MAX_ENCODED_BYTES`] is cut and ends in `~` and a
//! hash. Its full form stands in the object's index; [`SegmentKey`] says `None`.

use std::fmt;

use chrono::{DateTime, NaiveDate};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use ulid::Ulid;

use crate::model::{App, Millis, RuleName};

const SEGMENT_SUFFIX: &str = ".ndjson.zst";
const MARKS: &str = "v1/marks/";
const CLUSTER: &str = "v1/cluster.json";

/// All that is encoded besides letters and digits; a leading `.` is encoded on top.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// Leaves room for `rule=` and the like within the 255 bytes of a file name, and for two such
/// names, a date, a ULID and a prefix of 500 bytes within the 1024 bytes of an S3 key.
const MAX_ENCODED_BYTES: usize = 200;
/// How much of a long name is kept in front of `~` and 32 hex digits.
const CUT_BYTES: usize = MAX_ENCODED_BYTES - 33;

/// The name of an object below the store's prefix; never empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// What a segment's key says of it; [`ObjectName::key`] is its only spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectName {
    pub app: App,
    pub rule: RuleName,
    /// Days since 1970-01-01 UTC.
    pub finish_day: i64,
    pub ulid: Ulid,
}

/// What can be read back from a segment's key. A name that was too long is `None`; the index has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentKey {
    pub app: Option<App>,
    pub rule: Option<RuleName>,
    pub finish_day: i64,
    pub ulid: Ulid,
}

/// Which of our objects a key names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyKind {
    Segment(SegmentKey),
    Mark(Ulid),
    Cluster,
    /// Not ours, or of a later version: nobody but a person may delete it.
    Stranger,
}

impl ObjectName {
    /// The object's key. Days outside of the years 0–9999 are clamped; no clock gives them.
    pub fn key(&self) -> Key {
        Key(format!("{}{}{SEGMENT_SUFFIX}", self.folder(), self.ulid))
    }

    /// The folder of all objects of this app, rule and day, with its slash.
    pub fn folder(&self) -> String {
        let (app, rule) = (Key::app_folder(&self.app), encode(self.rule.as_str()));
        format!("{app}rule={rule}/finished={}/", format_day(self.finish_day))
    }
}

impl Key {
    /// The object that holds the cluster id.
    pub fn cluster() -> Self {
        Self(CLUSTER.to_owned())
    }

    /// The object of one delete or hold.
    pub fn mark(ulid: Ulid) -> Self {
        Self(format!("{MARKS}{ulid}.json"))
    }

    /// What says of a file that is no log where its bytes are. Outside of `v1/`: no rule, scrub or sweep comes here.
    pub fn file(folder: &str, name: &str) -> Self {
        Self(format!("files/{folder}/{}.json", encode(name)))
    }

    /// The bytes of such a file; a new name for each time it is written.
    pub fn file_bytes(folder: &str, ulid: Ulid) -> Self {
        Self(format!("files/{folder}/{ulid}.bin"))
    }

    /// The folder of all marks, for [`Store::list`](super::Store::list).
    pub fn marks_folder() -> &'static str {
        MARKS
    }

    /// The folder of everything of format version 1.
    pub fn v1_folder() -> &'static str {
        "v1/"
    }

    /// The folder of all objects of an app, with its slash.
    pub fn app_folder(app: &App) -> String {
        format!("v1/app={}/", encode(app.as_str()))
    }

    /// The day that a folder of objects names; `None` for any other folder.
    pub fn day_of_folder(folder: &str) -> Option<i64> {
        let (_, name) = folder.strip_suffix('/')?.rsplit_once('/')?;
        parse_day(name.strip_prefix("finished=")?)
    }

    pub fn kind(&self) -> KeyKind {
        if self.0 == CLUSTER {
            return KeyKind::Cluster;
        }
        if let Some(name) = self.0.strip_prefix(MARKS) {
            let ulid = name.strip_suffix(".json").and_then(parse_ulid);
            return ulid.map_or(KeyKind::Stranger, KeyKind::Mark);
        }
        parse_segment(&self.0).map_or(KeyKind::Stranger, KeyKind::Segment)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A key that a store listed or a table holds.
    pub fn stored(key: impl Into<String>) -> Self {
        Self(key.into())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn encode(name: &str) -> String {
    let (dot, rest) = match name.strip_prefix('.') {
        Some(rest) => ("%2E", rest),
        None => ("", name),
    };
    let encoded = format!("{dot}{}", utf8_percent_encode(rest, ENCODED));
    if encoded.len() <= MAX_ENCODED_BYTES {
        return encoded;
    }
    // The cut may leave half an escape; nobody decodes a name that was cut.
    format!("{}~{:032x}", &encoded[..CUT_BYTES], xxhash_rust::xxh3::xxh3_128(name.as_bytes()))
}

/// `None` where the text is not what [`encode`] gives; `Some(None)` where it was cut.
fn decode<T: std::str::FromStr>(encoded: &str) -> Option<Option<T>> {
    if let Some((kept, hash)) = encoded.split_once('~') {
        let is_cut = kept.len() == CUT_BYTES && hash.len() == 32 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        return is_cut.then_some(None);
    }
    let name = percent_decode_str(encoded).decode_utf8().ok()?;
    // One spelling per name: two keys must never mean the same object.
    if encode(&name) != encoded {
        return None;
    }
    name.parse().ok().map(Some)
}

fn parse_segment(key: &str) -> Option<SegmentKey> {
    let mut folders = key.split('/');
    if folders.next()? != "v1" {
        return None;
    }
    let app = decode(folders.next()?.strip_prefix("app=")?)?;
    let rule = decode(folders.next()?.strip_prefix("rule=")?)?;
    let finish_day = parse_day(folders.next()?.strip_prefix("finished=")?)?;
    let ulid = parse_ulid(folders.next()?.strip_suffix(SEGMENT_SUFFIX)?)?;
    folders.next().is_none().then_some(SegmentKey { app, rule, finish_day, ulid })
}

fn parse_ulid(text: &str) -> Option<Ulid> {
    Ulid::from_string(text).ok().filter(|ulid| ulid.to_string() == text)
}

fn format_day(day: i64) -> String {
    const YEAR_0: i64 = -719_528;
    const YEAR_9999_END: i64 = 2_932_896;
    let day = day.clamp(YEAR_0, YEAR_9999_END);
    DateTime::from_timestamp_millis(Millis::of_day(day).get()).unwrap_or_default().format("%Y-%m-%d").to_string()
}

fn parse_day(date: &str) -> Option<i64> {
    let midnight = NaiveDate::parse_from_str(date, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0)?.and_utc();
    let day = Millis::new(midnight.timestamp_millis()).day();
    (format_day(day) == date).then_some(day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(app: &str, rule: &str, finish_day: i64) -> ObjectName {
        let ulid = Ulid::from_parts(1_700_000_000_000, 7);
        ObjectName { app: app.parse().expect("app"), rule: rule.parse().expect("rule"), finish_day, ulid }
    }

    #[test]
    fn keys_are_plain_text() {
        let key = |app: &str| name(app, "default", 20_000).key().to_string();
        let expect = |app: &str| {
            format!("v1/app={app}/rule=default/finished=2024-10-04/01HF7YAT00000000000000000{}.ndjson.zst", "7")
        };
        for (app, encoded) in [
            ("billing", "billing"),
            ("a/b", "a%2Fb"),
            ("..", "%2E."),
            ("100%", "100%25"),
            ("x#1", "x%231"),
            ("a=b", "a%3Db"),
            ("账单", "%E8%B4%A6%E5%8D%95"),
            ("~", "%7E"),
        ] {
            assert_eq!(key(app), expect(encoded));
        }
        assert_eq!(name("a/b", "r", 1).folder(), "v1/app=a%2Fb/rule=r/finished=1970-01-02/");
        assert_eq!(Key::day_of_folder("v1/app=a%2Fb/rule=r/finished=1970-01-02/"), Some(1));
        assert_eq!(Key::day_of_folder("v1/app=a/rule=r/"), None);
    }

    #[test]
    fn long_names_are_cut_and_differ() {
        let long = |end: &str| name(&format!("{}{end}", "账".repeat(80)), &"r".repeat(255), 0);
        let (one, two) = (long("a"), long("b"));
        assert_ne!(one.key(), two.key());
        assert!(one.key().as_str().split('/').all(|folder| folder.len() <= 210), "{}", one.key());
        let KeyKind::Segment(parsed) = one.key().kind() else { panic!("a segment") };
        assert_eq!(parsed, SegmentKey { app: None, rule: None, finish_day: 0, ulid: one.ulid });
    }

    #[test]
    fn other_keys_are_told_apart() {
        assert_eq!(Key::cluster().kind(), KeyKind::Cluster);
        let ulid = Ulid::from_parts(5, 6);
        assert_eq!(Key::mark(ulid).kind(), KeyKind::Mark(ulid));
        let good = name("a", "r", 1).key().to_string();
        for bad in [
            good.replace("v1/", "v2/"),
            good.replace("1970-01-02", "1970-1-2"),
            good.replace(".ndjson.zst", ".ndjson.zst#1"),
            good.replace("app=a", "app=%61"),
            good.replace("app=a", "app="),
            good.replace("app=a", "app=a~b"),
            good.replace("app=a", "app=%FF"),
            good.to_lowercase(),
            format!("{good}/x"),
            "v1/marks/x.json".to_owned(),
            String::new(),
        ] {
            assert_eq!(Key::stored(bad.clone()).kind(), KeyKind::Stranger, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn keys_round_trip(
            app in "[\\PC/%.#=~\0 ]{1,60}", rule in "[a-zA-Z0-9_.-]{1,60}", finish_day in 0i64..100_000, random: u128,
        ) {
            let Ok(app) = app.parse() else { return Ok(()) };
            let ulid = Ulid::from_parts(1_700_000_000_000, random);
            let name = ObjectName { app, rule: rule.parse().expect("rule"), finish_day, ulid };
            let key = name.key();
            prop_assert!(object_store::path::Path::parse(key.as_str()).is_ok_and(|path| path.as_ref() == key.as_str()));
            let KeyKind::Segment(parsed) = key.kind() else { panic!("not parsed: {key}") };
            prop_assert!(parsed.app.is_none_or(|app| app == name.app));
            prop_assert_eq!(parsed.rule, Some(name.rule));
            prop_assert_eq!((parsed.finish_day, parsed.ulid), (name.finish_day, name.ulid));
        }

        #[test]
        fn any_text_is_parsed_or_refused(key: String) {
            let _ = Key::stored(key).kind();
        }
    }
}
