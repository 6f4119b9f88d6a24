//! The text of a configuration: the file and, after it, the environment's overrides.
//!
//! An override is a line `NAME=value` behind the end of the file and a value in the tree whose
//! span points there. So whatever goes wrong later with a value, its span says where it was written.

use std::ops::Range;

use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Env;
use super::file::File;
use super::problem::{Mistake, Problem, Problems};
use super::secret::mask_line;

/// Settings that are no texts. All other overrides stay as they were written: a password of
/// digits is no number.
const NUMBERS_AND_FLAGS: [&str; 10] = [
    "allow_anonymous",
    "connections",
    "hold",
    "keep_at_least",
    "max_lock_waits",
    "search_filters",
    "shards",
    "shared",
    "virtual_hosted_style",
    "zstd_level",
];

/// Variables that are settings under a shorter name.
const SHORT_NAMES: [(&str, &str); 2] = [("LOGTIER_DATA_DIR", "data_dir"), ("LOGTIER_LOG", "log.level")];

pub(super) struct Source {
    file: String,
    text: String,
    /// Where the file ends and the overrides begin.
    file_len: usize,
    overrides: Vec<Override>,
}

struct Override {
    /// `hot.url` for `LOGTIER_HOT__URL`.
    path: String,
    line: Range<usize>,
    value_start: usize,
}

impl Source {
    pub fn new(file: &str, text: &str, env: &Env) -> Self {
        let mut source =
            Self { file: file.to_owned(), text: format!("{text}\n"), file_len: text.len() + 1, overrides: Vec::new() };
        for (name, value) in env {
            if let Some(path) = setting_of(name) {
                let start = source.text.len();
                source.text.push_str(&format!("{name}={value}"));
                let (line, value_start) = (start..source.text.len(), start + name.len() + 1);
                source.overrides.push(Override { path, line, value_start });
                source.text.push('\n');
            }
        }
        source
    }

    /// Whether a variable sets `path`.
    pub fn overrides(&self, path: &str) -> bool {
        self.overrides.iter().any(|found| found.path == path)
    }

    /// The file as a tree, overrides put in.
    pub fn tree(&self) -> Result<DeTable<'_>, Problems> {
        let parsed = DeTable::parse(&self.text[..self.file_len]).map_err(|error| {
            let mistake = Mistake::new(error.message().lines().collect::<Vec<_>>().join(", "));
            self.problem(error.span(), mistake)
        })?;
        let mut tree = parsed.into_inner();
        let mut problems = Vec::new();
        for set in &self.overrides {
            if let Err(mistake) = self.put(&mut tree, set) {
                problems.push(self.problem(Some(set.line.clone()), mistake));
            }
        }
        if problems.is_empty() { Ok(tree) } else { Err(Problems::new(problems)) }
    }

    fn put<'a>(&'a self, tree: &mut DeTable<'a>, set: &'a Override) -> Result<(), Mistake> {
        let mut table = tree;
        let mut names = set.path.split('.').peekable();
        while let Some(name) = names.next() {
            let key = Spanned::new(set.line.start..set.value_start - 1, name.into());
            if names.peek().is_none() {
                let twin = name.strip_suffix("_file").map_or_else(|| format!("{name}_file"), str::to_owned);
                // A secret from the environment replaces the file's, in whichever form that is.
                if table.get_key_value(&*twin).is_some_and(|(key, _)| key.span().start < self.file_len) {
                    table.remove(&*twin);
                }
                let value = value(name, &self.text[set.value_start..set.line.end]);
                // The map keeps an old key, and with it the old span.
                table.remove(name);
                table.insert(key, Spanned::new(set.line.clone(), value));
                break;
            }
            let empty = || Spanned::new(set.line.clone(), DeValue::Table(DeTable::new()));
            match table.entry(key).or_insert_with(empty).get_mut() {
                DeValue::Table(inner) => table = inner,
                _ => {
                    return Err(Mistake::new(format!("{name} is no table, so a variable cannot set a part of it"))
                        .help("lists such as hot.server and retention.rule can only stand in the file"));
                }
            }
        }
        Ok(())
    }

    /// The tree's values by name, and every unknown name and wrong type that is left out of them.
    pub fn shape(&self, tree: &DeTable<'_>) -> Result<(File, Vec<Problem>), Problems> {
        let mut tree = tree.clone();
        let mut problems = Vec::new();
        loop {
            let whole = Spanned::new(0..self.file_len, tree.clone());
            let error = match File::deserialize(toml::de::Deserializer::from(whole)) {
                Ok(file) => return Ok((file, problems)),
                Err(error) => error,
            };
            let mut problem = self.problem(error.span(), explain(error.message()));
            if is_unknown_name(error.message()) && !problem.text.starts_with('[') {
                // Without the value: the name may be a secret's, misspelt.
                problem.text = error.span().map_or_else(String::new, |name| self.text[name].to_owned());
            }
            problems.push(problem);
            // serde stops at the first mistake: take it out and look for the next.
            if !error.span().is_some_and(|span| cut(&mut tree, &span)) {
                return Err(Problems::new(problems));
            }
        }
    }

    /// A problem with what stands at `span`; the text shown is the line that it begins on.
    pub fn problem(&self, span: Option<Range<usize>>, mistake: Mistake) -> Problem {
        let Some(start) = span.map(|span| span.start.min(self.text.len().saturating_sub(1))) else {
            return Problem::without_place(mistake);
        };
        let line_start = self.text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.text[line_start..].lines().next().unwrap_or_default().trim();
        let place = if start >= self.file_len {
            "environment".to_owned()
        } else {
            format!("{}:{}", self.file, self.text[..start].matches('\n').count() + 1)
        };
        // What stands in the middle of a text of several lines may be a secret's.
        let quotes = ["\"\"\"", "'''"].map(|quote| self.text[..line_start].matches(quote).count());
        let text = if quotes.iter().all(|count| count % 2 == 0) { mask_line(line) } else { "…".to_owned() };
        Problem::new(place, text, start, mistake)
    }
}

/// The setting that a variable stands for: `__` parts its names.
///
/// Names without `__` are not looked at: they are the command line's, or come from the outside
/// (Kubernetes gives every pod `LOGTIER_PORT` where a service is called logtier).
fn setting_of(variable: &str) -> Option<String> {
    if let Some((_, path)) = SHORT_NAMES.iter().find(|(name, _)| *name == variable) {
        return Some((*path).to_owned());
    }
    let name = variable.strip_prefix("LOGTIER_")?;
    let foreign = name.starts_with("TEST_") || name.starts_with("PAUSE_");
    (name.contains("__") && !foreign).then(|| name.to_ascii_lowercase().replace("__", "."))
}

/// Variables that look like settings and are none: a name without `__` that nobody knows. Not an error,
/// because some come from the outside.
pub fn strangers(env: &Env) -> Vec<&str> {
    // The command line's own, and what Kubernetes gives every pod where a service is called logtier.
    const KNOWN: [&str; 8] = ["APP", "CONFIG", "INSTANCE", "REQUIRE_CONFIG", "SPOOL", "TOKEN", "TOKEN_FILE", "URL"];
    const FOREIGN: [&str; 5] = ["PAUSE_", "PORT", "SERVICE_", "TEST_", "TOOLS"];
    let is_stranger = |name: &&str| {
        name.strip_prefix("LOGTIER_").is_some_and(|name| {
            !name.contains("__") && !KNOWN.contains(&name) && !FOREIGN.iter().any(|prefix| name.starts_with(prefix))
        }) && setting_of(name).is_none()
    };
    env.keys().map(String::as_str).filter(is_stranger).collect()
}

fn value<'a>(name: &str, text: &'a str) -> DeValue<'a> {
    if NUMBERS_AND_FLAGS.contains(&name)
        && let Ok(value) = DeValue::parse(text)
        && (value.get_ref().is_integer() || value.get_ref().is_bool())
    {
        return value.into_inner();
    }
    DeValue::String(text.into())
}

fn is_unknown_name(message: &str) -> bool {
    message.starts_with("unknown field")
}

/// Says in our words what serde says of an unknown name, and what might have been meant.
fn explain(message: &str) -> Mistake {
    let mut quoted = message.split('`').skip(1).step_by(2);
    match (is_unknown_name(message), quoted.next()) {
        (true, Some(unknown)) => Mistake::new(format!("unknown setting \"{unknown}\"")).suggest(unknown, quoted),
        _ => {
            let (found, expected) = message.split_once(", expected ").unwrap_or((message, ""));
            Mistake::new(match expected {
                "" => found.to_owned(),
                "i64" => format!("{found}, expected a whole number without quotes"),
                "a boolean" => format!("{found}, expected true or false without quotes"),
                "a string" => format!("{found}, expected a text in quotes"),
                table if table.starts_with("struct ") => format!("{found}, expected a table"),
                _ => message.to_owned(),
            })
        }
    }
}

/// Takes out the entry whose key or value stands at `span`; says whether there was one.
fn cut(table: &mut DeTable<'_>, span: &Range<usize>) -> bool {
    let found = table.iter().find(|(key, value)| key.span() == *span || value.span() == *span);
    if let Some(key) = found.map(|(key, _)| key.clone()) {
        return table.remove(&key).is_some();
    }
    table.iter_mut().any(|(_, value)| cut_below(value, span))
}

fn cut_below(value: &mut Spanned<DeValue<'_>>, span: &Range<usize>) -> bool {
    match value.get_mut() {
        DeValue::Table(inner) => cut(inner, span),
        DeValue::Array(items) => items.iter_mut().any(|item| cut_below(item, span)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_with_two_underscores_are_settings() {
        let check = |variable: &str, path: Option<&str>| assert_eq!(setting_of(variable).as_deref(), path);
        check("LOGTIER_HOT__URL", Some("hot.url"));
        check("LOGTIER_RETENTION__DEFAULT__HOT_FOR", Some("retention.default.hot_for"));
        check("LOGTIER_DATA_DIR", Some("data_dir"));
        check("LOGTIER_LOG", Some("log.level"));
        for other in ["LOGTIER_URL", "LOGTIER_PORT_7710_TCP", "LOGTIER_TEST_S3__URL", "LOGTIER_PAUSE_A__B", "HOT__URL"]
        {
            check(other, None);
        }
    }

    #[test]
    fn a_variable_that_nobody_knows_is_named() {
        let names = [
            "LOGTIER_LISTEN",
            "LOGTIER_FOO",
            "LOGTIER_URL",
            "LOGTIER_LOG",
            "LOGTIER_HOT__URL",
            "LOGTIER_PORT_7710_TCP",
            "HOME",
        ];
        let env: Env = names.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect();
        assert_eq!(strangers(&env), ["LOGTIER_FOO", "LOGTIER_LISTEN"]);
    }

    /// Every setting of the sample that is a number or a flag is in the list, and nothing else is.
    #[test]
    fn the_list_of_numbers_and_flags_is_whole() {
        fn collect(table: &toml::Table, found: &mut Vec<String>) {
            for (key, value) in table {
                match value {
                    toml::Value::Table(inner) => collect(inner, found),
                    toml::Value::Array(items) => {
                        items.iter().filter_map(toml::Value::as_table).for_each(|inner| collect(inner, found));
                    }
                    // In [[hot.server]] shards is a text, and stands in the file only.
                    toml::Value::String(_) => {}
                    _ => found.push(key.clone()),
                }
            }
        }
        let mut found = Vec::new();
        collect(&super::super::sample::every_setting().parse().expect("TOML"), &mut found);
        found.sort();
        found.dedup();
        assert_eq!(found, NUMBERS_AND_FLAGS);
    }
}
