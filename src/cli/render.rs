//! Shows any JSON answer as text for people.
//!
//! Answers grow members over time, so nothing here knows their names: how a value is shown follows
//! from the end of its name (`…_bytes`, `…_at`, `…_ms`, `…_seconds`) and from its shape.

use std::time::Duration;

use serde_json::{Map, Value};

use super::output::{bytes, local_time, number, span};

/// A column with a wider cell stands last, where it pushes no other out of sight.
const WIDEST_IN_THE_MIDDLE: usize = 40;

/// A document: an aligned list of names and values, deeper levels indented, lists of objects as tables.
pub(super) fn document(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value, 0);
    text
}

fn write_value(text: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(members) => write_object(text, members, indent),
        Value::Array(items) => write_array(text, items, indent),
        scalar => text.push_str(&format!("{:indent$}{}\n", "", cell("", scalar))),
    }
}

fn write_object(text: &mut String, members: &Map<String, Value>, indent: usize) {
    let label = |name: &str| label_among(members, name);
    let width = members.iter().filter(|(_, v)| is_short(v)).map(|(name, _)| label(name).chars().count()).max();
    let (short, long): (Vec<_>, Vec<_>) = members.iter().partition(|(_, value)| is_short(value));
    for (name, value) in short {
        let (name, value, width) = (label(name), cell(name, value), width.unwrap_or(0));
        text.push_str(&format!("{:indent$}{name:width$}  {value}\n", ""));
    }
    for (name, value) in long {
        if indent == 0 && !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("{:indent$}{}\n", "", label(name)));
        write_value(text, value, indent + 2);
    }
}

fn write_array(text: &mut String, items: &[Value], indent: usize) {
    if items.iter().all(|item| item.as_object().is_some_and(|object| object.values().all(is_short))) {
        let mut columns: Vec<&str> = Vec::new();
        for name in items.iter().filter_map(Value::as_object).flat_map(Map::keys) {
            if !columns.contains(&name.as_str()) {
                columns.push(name);
            }
        }
        let is_wide =
            |name: &&str| items.iter().any(|item| cell(name, &item[*name]).chars().count() > WIDEST_IN_THE_MIDDLE);
        columns.sort_by_key(is_wide);
        let rows: Vec<Vec<String>> =
            items.iter().map(|item| columns.iter().map(|name| cell(name, &item[*name])).collect()).collect();
        let heads: Vec<String> = columns.iter().map(|name| label(name).to_uppercase()).collect();
        for line in table(&heads, &rows).lines() {
            text.push_str(&format!("{:indent$}{line}\n", ""));
        }
        return;
    }
    for item in items {
        let mut inner = String::new();
        write_value(&mut inner, item, indent + 2);
        // The first line carries the bullet.
        inner.replace_range(indent..(indent + 1).min(inner.len()), "-");
        text.push_str(&inner);
    }
}

/// Whether a value stands on the line of its name.
fn is_short(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.is_empty(),
        Value::Array(items) => items.iter().all(|item| !item.is_object() && !item.is_array()),
        _ => true,
    }
}

/// A unit says what two of one name are.
fn label_among(members: &Map<String, Value>, name: &str) -> String {
    let short = label(name);
    let is_taken = members.keys().any(|other| other != name && label(other) == short);
    if is_taken { name.replace('_', " ") } else { short }
}

fn label(name: &str) -> String {
    let name = ["_bytes", "_at", "_ms", "_millis", "_seconds", "_secs"]
        .iter()
        .find_map(|unit| name.strip_suffix(unit))
        .filter(|name| !name.is_empty())
        .unwrap_or(name);
    name.replace('_', " ")
}

/// A value as it stands in one place; `name` says its unit.
pub(super) fn cell(name: &str, value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::Number(n) => match n.as_u64() {
            Some(n) if name == "bytes" || name.ends_with("_bytes") => bytes(n),
            Some(n) if name.ends_with("_ms") || name.ends_with("_millis") => span(Duration::from_millis(n)),
            Some(n) if name.ends_with("_seconds") || name.ends_with("_secs") => span(Duration::from_secs(n)),
            // Unix milliseconds; what is smaller is a count.
            Some(n) if name.ends_with("_at") && n > 1_000_000_000_000 => local_time(&n.to_string()),
            Some(n) => number(n),
            None => match n.as_f64().and_then(|n| Duration::try_from_secs_f64(n).ok()) {
                Some(seconds) if name.ends_with("_seconds") => span(Duration::from_secs(seconds.as_secs())),
                _ => n.to_string(),
            },
        },
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) if looks_like_time(text) => local_time(text),
        Value::String(text) => printable(text),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(|item| cell(name, item)).collect::<Vec<_>>().join(", "),
        Value::Object(members) if members.is_empty() => "none".to_owned(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| format!("{name}={}", cell(name, value))).collect::<Vec<_>>().join(" ")
        }
    }
}

fn looks_like_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 20 && bytes[4] == b'-' && bytes[10] == b'T' && bytes[..4].iter().all(u8::is_ascii_digit)
}

/// Without what would move the cursor, turn the writing's direction or look like another name: a
/// terminal shows names that anybody may have chosen.
fn printable(text: &str) -> String {
    let is_unseen = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().flat_map(|c| if is_unseen(c) { c.escape_default().collect() } else { vec![c] }).collect()
}

/// Columns as wide as they need to be, two spaces apart, the last one free.
pub(super) fn table(heads: &[String], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = std::iter::once(heads)
        .chain(rows.iter().map(Vec::as_slice))
        .map(|row| row.iter().map(|cell| printable(cell)).collect())
        .collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..heads.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_of_every_shape() {
        let value = serde_json::json!({
            "state": "ok", "due_at": "now", "due_seconds": 61.5, "queue_bytes": 1536, "lag_ms": 61_000, "leases": [], "shared": true,
            "hot": {"lines": 12_345, "url": null},
            "tasks": [{"name": "mover", "failures": 0}, {"name": "sweep", "last_error": "x\ny"}],
            "odd": [{"deep": {"a": 1}}],
            "failures": [{"error": "x".repeat(90), "what": "archive"}],
        });
        let expected = "\
due at       now
due seconds  1m 1s
lag          1m 1s
leases       none
queue        1.5 KiB
shared       yes
state        ok

failures
  WHAT     ERROR
  archive  xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx

hot
  lines  12,345
  url    -

odd
  - deep
      a  1

tasks
  FAILURES  NAME   LAST ERROR
  0         mover  -
  -         sweep  x\\ny
";
        assert_eq!(document(&value), expected);
    }

    #[test]
    fn names_that_differ_look_different() {
        let names = ["a b", "a\nb", "a\0b", "a\u{202e}b", "ab", "日本"];
        let shown: Vec<String> = names.iter().map(|name| cell("instance", &Value::from(*name))).collect();
        assert_eq!(shown, ["a b", "a\\nb", "a\\u{0}b", "a\\u{202e}b", "ab", "日本"]);
    }
}
