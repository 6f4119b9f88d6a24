//! The query string, in which a name that nobody knows is an error: a mistyped `form_line` must
//! not silently return everything.

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;

use super::Problem;
use crate::model::{App, Instance, Millis, Timestamp};

/// A request's query parameters. Each call takes those that it knows and then [`Params::finish`]es.
#[derive(Debug, Default)]
pub struct Params {
    left: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl Params {
    pub fn parse(query: &str) -> Result<Self, Problem> {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let left = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        });
        Ok(Self { left: left.collect::<Result<_, Problem>>()?, known: Vec::new() })
    }

    pub fn has(&self, name: &str) -> bool {
        self.left.iter().any(|(given, _)| given == name)
    }

    /// All values of a parameter that may be repeated.
    pub fn take_all(&mut self, name: &'static str) -> Vec<String> {
        self.known.push(name);
        let (taken, left) = std::mem::take(&mut self.left).into_iter().partition(|(given, _)| given == name);
        self.left = left;
        let taken: Vec<(String, String)> = taken;
        taken.into_iter().map(|(_, value)| value).collect()
    }

    /// A parameter that may be given once.
    pub fn take(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        let mut values = self.take_all(name);
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => Err(Problem::bad_request(format!("query parameter \"{name}\" is given more than once"))),
        }
    }

    pub fn take_parsed<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Result<Option<T>, Problem> {
        let parse = |value: String| value.parse().map_err(|error| invalid(name, &value, error));
        self.take(name)?.map(parse).transpose()
    }

    /// A number of the range.
    pub fn take_number(&mut self, name: &'static str, least: u64, most: u64) -> Result<Option<u64>, Problem> {
        let Some(text) = self.take(name)? else { return Ok(None) };
        match text.parse::<u64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(invalid(name, &text, format!("it must be a whole number from {least} to {most}"))),
        }
    }

    /// `true` or `false`; the name alone means true.
    pub fn take_flag(&mut self, name: &'static str) -> Result<bool, Problem> {
        match self.take(name)?.as_deref() {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(other) => Err(invalid(name, other, "it must be true or false")),
        }
    }

    pub fn take_time(&mut self, name: &'static str) -> Result<Option<Timestamp>, Problem> {
        let Some(text) = self.take(name)? else { return Ok(None) };
        // A "+" that was not percent-encoded arrives as a space.
        let text = text.replace(' ', "+");
        Timestamp::parse(&text).map(Some).map_err(|_| {
            let expected = "RFC 3339 (2026-11-22T10:00:00Z) or unix milliseconds are expected";
            invalid(name, &text, expected)
        })
    }

    pub fn take_millis(&mut self, name: &'static str) -> Result<Option<Millis>, Problem> {
        Ok(self.take_time(name)?.map(|time| Millis::new(time.nanos().div_euclid(1_000_000))))
    }

    /// `label.NAME=VALUE`, any number of them.
    pub fn take_labels(&mut self) -> Vec<(String, String)> {
        self.known.push("label.NAME");
        let (labels, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.left).into_iter().partition(|(name, _)| name.starts_with("label."));
        self.left = left;
        labels.into_iter().map(|(name, value)| (name["label.".len()..].to_owned(), value)).collect()
    }

    /// Refuses what nobody took.
    pub fn finish(mut self) -> Result<(), Problem> {
        let mut unknown: Vec<String> = self.left.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        unknown.dedup();
        self.known.sort_unstable();
        let known = self.known.join(", ");
        let detail = match self.known.is_empty() {
            true => format!("unknown query parameter {}: this call takes none", unknown.join(", ")),
            false => format!("unknown query parameter {}: this call takes {known}", unknown.join(", ")),
        };
        let unknown = self.left.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        Err(Problem::bad_request(detail).with("unknown", unknown).with("known", self.known))
    }
}

pub fn invalid(name: &str, value: &str, why: impl Display) -> Problem {
    let shown: String = value.chars().take(100).collect();
    Problem::bad_request(format!("{name} = \"{shown}\": {why}")).with("parameter", name)
}

fn decode(text: &str) -> Result<String, Problem> {
    let text: Cow<'_, str> = if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    let decoded = percent_decode_str(&text).decode_utf8();
    decoded.map(Cow::into_owned).map_err(|_| Problem::bad_request("the query string is no percent-encoded UTF-8"))
}

/// What every call has: the names in its path and its query parameters.
pub struct Call {
    path: Vec<(String, String)>,
    pub params: Params,
}

impl Call {
    /// A name that stands in the path.
    pub fn path(&self, name: &str) -> Option<&str> {
        self.path.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The app and instance: of the path, or in the form without names in the path, of the query.
    pub fn target(&mut self) -> Result<(App, Instance), Problem> {
        match (self.path("app"), self.path("instance")) {
            (Some(app), Some(instance)) => {
                let refuse = |error: crate::model::InvalidName| Problem::bad_request(error.to_string());
                Ok((app.parse().map_err(refuse)?, instance.parse().map_err(refuse)?))
            }
            _ => {
                let app = self.params.take_parsed("app")?.unwrap_or_default();
                let instance = self.params.take_parsed("instance")?;
                let missing = || Problem::bad_request("query parameter \"instance\" is missing");
                Ok((app, instance.ok_or_else(missing)?))
            }
        }
    }

    /// The app of the path, or of the query; `None` means all.
    pub fn app(&mut self) -> Result<Option<App>, Problem> {
        match self.path("app") {
            Some(app) => app
                .parse()
                .map(Some)
                .map_err(|error: crate::model::InvalidName| Problem::bad_request(error.to_string())),
            None => self.params.take_parsed("app"),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Call {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = RawPathParams::from_request_parts(parts, state).await;
        let path = path.map_err(|_| Problem::bad_request("the path is no percent-encoded UTF-8"))?;
        let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(Self { path, params: Params::parse(parts.uri.query().unwrap_or_default())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_knows_is_refused_by_name() {
        let mut params = Params::parse("form_line=3&limit=5").expect("a query");
        assert_eq!(params.take_number("limit", 1, 10).expect("a number"), Some(5));
        let problem = params.finish().expect_err("unknown");
        assert_eq!(problem.detail(), "unknown query parameter \"form_line\": this call takes limit");
    }

    #[test]
    fn values_are_checked() {
        let check = |query: &str| {
            let mut params = Params::parse(query)?;
            params.take_number("n", 1, 10)?;
            params.take_flag("flag")?;
            params.take_time("since")?;
            params.finish()
        };
        for good in ["", "n=10", "flag", "flag=false&", "since=2026-01-01T00:00:00+08:00", "since=5"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["n=0", "n=11", "n=", "n=1&n=1", "flag=maybe", "since=today", "n=%FF", "x"] {
            assert_eq!(check(bad).expect_err(bad).kind(), "bad-request");
        }
    }
}
