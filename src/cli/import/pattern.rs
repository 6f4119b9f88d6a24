//! Paths that say whose log a file is: `{date}/{job}-{instance}.log`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::FromStr;

use regex::Regex;

/// A text with names in braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Name(String),
}

/// What a path said, by name.
pub(super) type Said = BTreeMap<String, String>;

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once('{') {
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            let (name, after) =
                after.split_once('}').ok_or_else(|| format!("\"{text}\" has a \"{{\" without \"}}\""))?;
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(plain) {
                return Err(format!("\"{{{name}}}\" is no name, expected lower case letters, digits and \"_\""));
            }
            pieces.push(Piece::Name(name.to_owned()));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }
}

impl Template {
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Name(name) => Some(name.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// The text with what was said in place of the names.
    pub(super) fn fill(&self, said: &Said) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            text.push_str(match piece {
                Piece::Text(literal) => literal,
                Piece::Name(name) => said.get(name).map_or("", String::as_str),
            });
        }
        text
    }
}

/// Finds what the end of a path says; a name stands for anything but a slash.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    regex: Regex,
    names: Vec<String>,
}

impl Pattern {
    pub(super) fn new(template: &Template) -> Result<Self, String> {
        // Whatever folders stand before it.
        let (mut expression, mut names) = ("(?:^|/)".to_owned(), Vec::<String>::new());
        for piece in &template.0 {
            match piece {
                Piece::Text(text) => expression.push_str(&regex::escape(text)),
                Piece::Name(name) if names.contains(name) => return Err(format!("\"{{{name}}}\" stands there twice")),
                Piece::Name(name) => {
                    let value = match name.as_str() {
                        "date" => r"\d{4}-\d{2}-\d{2}|\d{8}",
                        "attempt" => r"[1-9]\d{0,8}",
                        _ => "[^/]+",
                    };
                    // Writing to a String cannot fail.
                    let _ = write!(expression, "(?P<{name}>{value})");
                    names.push(name.clone());
                }
            }
        }
        expression.push('$');
        let regex = Regex::new(&expression).map_err(|error| format!("the pattern is too large: {error}"))?;
        Ok(Self { regex, names })
    }

    pub(super) fn read(&self, path: &str) -> Option<Said> {
        let found = self.regex.captures(path)?;
        let said = |name: &String| Some((name.clone(), found.name(name)?.as_str().to_owned()));
        self.names.iter().map(said).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pattern: &str, path: &str) -> Option<String> {
        let template: Template = pattern.parse().expect("a template");
        let said = Pattern::new(&template).expect("a pattern").read(path)?;
        Some(said.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn the_end_of_a_path_says_whose_log_it_is() {
        let check = |pattern, path, said: Option<&str>| assert_eq!(read(pattern, path).as_deref(), said, "{path}");
        check("{date}/{instance}.log", "x/2026-11-22/17.log", Some("date=2026-11-22 instance=17"));
        check("{date}/{instance}.log", "20261122/17.log", Some("date=20261122 instance=17"));
        check("{date}/{instance}.log", "callbacklog/17.log", None);
        check("{date}/{instance}.log", "2026-11-22/17.log.gz", None);
        check("{date}/{instance}.log", "x2026-11-22/17.log", None);
        check("{job}-{instance}.{attempt}.log", "a-b-7.2.log", Some("attempt=2 instance=7 job=a-b"));
        check("{job}-{instance}.{attempt}.log", "a-b-7.0.log", None);
        check("a+b/{instance}", "a+b/c", Some("instance=c"));
    }

    #[test]
    fn templates_are_filled() {
        let template: Template = "{dag}/{run}/x{none}".parse().expect("a template");
        let said = [("dag", "d"), ("run", "r")].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(template.fill(&said), "d/r/x");
        assert_eq!(template.names().collect::<Vec<_>>(), ["dag", "run", "none"]);
        for bad in ["{", "{a", "{}", "{A}", "{a b}", "{1}"] {
            assert!(bad.parse::<Template>().is_err(), "{bad}");
        }
        assert!(Pattern::new(&"{a}{a}".parse().expect("a template")).is_err());
    }
}
