//! `config/logtier.toml` is tested, so that it cannot rot.
//!
//! Its conventions: `#key = value` without a space is a setting that is commented out, and the
//! value is the default unless the line ends in `# example`; all other comments are prose.

use super::{Config, Env, source::Source};

const SAMPLE: &str = include_str!("../../config/logtier.toml");

/// The sample with its settings commented in.
pub(super) fn every_setting() -> String {
    uncomment(|_| true)
}

fn uncomment(wanted: impl Fn(&str) -> bool) -> String {
    let is_setting = |line: &str| line.starts_with(|c: char| c.is_ascii_lowercase() || c == '[');
    let lines = SAMPLE.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if is_setting(setting) && wanted(setting) => setting,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn is_example(line: &str) -> bool {
    line.ends_with("# example")
}

#[test]
fn as_it_is_the_sample_changes_nothing() {
    let sample = Config::from_toml(SAMPLE, "sample", &Env::new()).expect("valid");
    let empty = Config::from_toml("", "empty", &Env::new()).expect("valid");
    assert_eq!(format!("{sample:#?}"), format!("{empty:#?}"));
}

#[test]
fn what_the_sample_shows_as_default_is_the_default() {
    let text = uncomment(|line| !is_example(line));
    let sample = Config::from_toml(&text, "sample", &Env::new()).expect("valid");
    let empty = Config::from_toml("", "empty", &Env::new()).expect("valid");
    assert_eq!(format!("{sample:#?}"), format!("{empty:#?}"));
}

#[test]
fn the_sample_shows_every_setting() {
    let text = every_setting();
    let source = Source::new("sample", &text, &Env::new());
    let file = source.shape(&source.tree().expect("TOML")).expect("known settings");
    let shown = format!("{file:#?}");
    let missing: Vec<&str> = shown.lines().filter(|line| line.contains(": None")).map(str::trim).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn all_settings_of_the_sample_go_together() {
    // But for the secrets' second forms, whose files are not here.
    let text = uncomment(|line| !line.contains("_file ="));
    let config = Config::from_toml(&text, "sample", &Env::new()).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.hot.servers.len(), 2);
    assert_eq!(config.retention.rules.iter().count(), 2);
}
