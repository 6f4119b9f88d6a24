//! Turns the file's values into checked ones, noting every mistake and going on.

use std::fmt::Display;
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Env;
use super::problem::{Mistake, Problem, Problems};
use super::secret::Secret;
use super::source::Source;

/// Collects what is wrong. Every method gives some value, so that the check can go on; that
/// value is thrown away at the end if there was a mistake.
pub(super) struct Checker<'a> {
    source: &'a Source,
    tree: &'a DeTable<'a>,
    pub env: &'a Env,
    /// Something has a wrong name or type and was left out: what follows from several settings is not known.
    has_holes: bool,
    problems: Vec<Problem>,
}

impl<'a> Checker<'a> {
    /// A checker of what is left of `tree` without what is `misshapen`.
    pub fn new(source: &'a Source, tree: &'a DeTable<'a>, env: &'a Env, misshapen: Vec<Problem>) -> Self {
        Self { source, tree, env, has_holes: !misshapen.is_empty(), problems: misshapen }
    }

    /// `value`, if nothing was wrong; a `None` must have been explained by a problem.
    pub fn done<T>(self, value: Option<T>) -> Result<T, Problems> {
        match value {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => Err(Problems::new(self.problems)),
        }
    }

    /// How many mistakes were noted, so that none is noted that only follows from another.
    pub fn count(&self) -> usize {
        self.problems.len()
    }

    /// Notes that the setting at `path` does not go with others, which can be told only where all are there.
    pub fn refuse(&mut self, path: &str, mistake: Mistake) {
        if !self.has_holes {
            self.note(path, mistake);
        }
    }

    /// Notes a mistake in the setting at `path` (`hot.url`, `retention.rule.0.app`), or in the
    /// nearest table above it that is there.
    fn note(&mut self, path: &str, mistake: Mistake) {
        let mut at = None;
        let mut node: Option<&DeValue<'_>> = None;
        for name in path.split('.') {
            let next = match node {
                None => self.tree.get(name),
                Some(DeValue::Table(table)) => table.get(name),
                Some(DeValue::Array(items)) => name.parse().ok().and_then(|n: usize| items.get(n)),
                Some(_) => None,
            };
            let Some(next) = next else { break };
            at = Some(next.span());
            node = Some(Spanned::get_ref(next));
        }
        self.problems.push(self.source.problem(at, mistake));
    }

    /// The parsed text, or `default` if there is none.
    pub fn parse<T>(
        &mut self,
        path: &str,
        text: Option<String>,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, Mistake>,
    ) -> T {
        match text.as_deref().map(parse) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(mistake)) => {
                self.note(path, mistake);
                default
            }
        }
    }

    /// The number, or `default` if there is none.
    pub fn number<T>(&mut self, path: &str, number: Option<i64>, default: T, allowed: RangeInclusive<i64>) -> T
    where
        T: TryFrom<i64>,
    {
        let Some(number) = number else { return default };
        self.within(path, &number, &allowed, i64::to_string);
        T::try_from(number).unwrap_or(default)
    }

    pub fn within<T: PartialOrd>(
        &mut self,
        path: &str,
        value: &T,
        allowed: &RangeInclusive<T>,
        show: impl Fn(&T) -> String,
    ) {
        if !allowed.contains(value) {
            let (least, most) = (show(allowed.start()), show(allowed.end()));
            self.note(path, Mistake::new(format!("{} is not between {least} and {most}", show(value))));
        }
    }

    /// The secret, given as it is or as the name of a file that holds it and nothing else.
    pub fn secret(&mut self, path: &str, given: Option<Secret>, file: Option<String>) -> Option<Secret> {
        let name = path.rsplit('.').next().unwrap_or(path);
        let file_path = format!("{path}_file");
        let (secret, path) = match (given, file) {
            (None, None) => return None,
            (Some(_), Some(_)) => {
                let mistake = Mistake::new(format!("both {name} and {name}_file are set"));
                self.note(&file_path, mistake.help("remove one of them"));
                return None;
            }
            (Some(secret), None) => (secret, path),
            (None, Some(file)) => match std::fs::read_to_string(&file) {
                Ok(text) => (Secret::new(text.trim_end_matches(['\r', '\n'])), file_path.as_str()),
                Err(error) => {
                    self.note(&file_path, unreadable(&file, &error));
                    return None;
                }
            },
        };
        if secret.expose().is_empty() {
            self.note(path, Mistake::new(format!("the {name} is empty")));
        }
        Some(secret)
    }
}

pub(super) fn unreadable(file: &str, error: &dyn Display) -> Mistake {
    Mistake::new(format!("cannot read {file}: {error}"))
}
