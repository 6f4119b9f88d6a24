//! Retention rules: the file's `[retention]` as a [`RuleSet`].

use std::collections::HashSet;
use std::time::Duration;

use globset::{Glob, GlobMatcher};

use super::check::Checker;
use super::file;
use super::problem::Mistake;
use super::units::{parse_age, parse_span, show_age};
use crate::model::{Age, Outcome, Rule, RuleName, RuleSet};

const DEFAULT: &str = "default";
const DAY: Duration = Duration::from_secs(86_400);

/// How long attempts stay where, and how long logtier remembers that there was one.
#[derive(Debug, Clone)]
pub struct Retention {
    pub rules: RuleSet,
    /// For so long after its end an expired or deleted attempt is answered with 410, then with 404.
    pub forget_after: Age,
    /// What someone deleted leaves the bucket within this time.
    pub erase_within: Age,
    /// For so long after the rules changed, whatever the old ones kept longer stays.
    pub shrink_grace: Duration,
}

impl Retention {
    /// Never `None`: "default" is a name.
    pub(super) fn check(file: file::Retention, check: &mut Checker<'_>) -> Option<Self> {
        let year = Age::For(365 * DAY);
        let forget_after = check.parse("retention.forget_after", file.forget_after, year, parse_age);
        let month = Age::For(30 * DAY);
        let erase_within = check.parse("retention.erase_within", file.erase_within, month, parse_age);
        let shrink_grace = check.parse("retention.shrink_grace", file.shrink_grace, DAY, parse_span);
        let built_in = Ages {
            hot_for: Age::For(3 * DAY),
            cold_for: Age::For(180 * DAY),
            max_open_for: Age::For(7 * DAY),
            keep_at_least: 0,
            hold: false,
        };
        let default = Ages::check(file.default.unwrap_or_default(), "retention.default", &built_in, check);
        let mut rules: Vec<Rule> = Vec::new();
        let mut names = HashSet::new();
        for (n, rule) in file.rule.into_iter().flatten().enumerate() {
            let path = format!("retention.rule.{n}");
            let Some(rule) = check_rule(rule, &path, &default, check) else { continue };
            if !names.insert(rule.name.clone()) {
                let mistake = Mistake::new(format!("two rules are called \"{}\"", rule.name));
                check.refuse(&format!("{path}.name"), mistake.help("names are unique: object keys carry them"));
            }
            if let Some(earlier) = rules.iter().find(|earlier| covers(earlier, &rule)) {
                let mistake = Mistake::new(format!("rule \"{}\" can never match", rule.name));
                check.refuse(
                    &path,
                    mistake.help(format!(
                        "rule \"{}\" above it takes all that it would match, and the first match wins: put \"{}\" first",
                        earlier.name, rule.name
                    )),
                );
            }
            rules.push(rule);
        }
        let default = default.rule(DEFAULT.parse().ok()?, None, None, None);
        Some(Self { rules: RuleSet::new(rules, default), forget_after, erase_within, shrink_grace })
    }
}

/// What a rule decides, apart from what it applies to.
struct Ages {
    hot_for: Age,
    cold_for: Age,
    max_open_for: Age,
    keep_at_least: u32,
    hold: bool,
}

impl Ages {
    /// What is not set comes from `default`.
    fn check(file: file::Ages, path: &str, default: &Self, check: &mut Checker<'_>) -> Self {
        let (hot_is_own, cold_is_own) = (file.hot_for.is_some(), file.cold_for.is_some());
        let mistakes = check.count();
        let mut age = |name: &str, text, default| check.parse(&format!("{path}.{name}"), text, default, parse_age);
        let ages = Self {
            hot_for: age("hot_for", file.hot_for, default.hot_for),
            cold_for: age("cold_for", file.cold_for, default.cold_for),
            max_open_for: age("max_open_for", file.max_open_for, default.max_open_for),
            keep_at_least: check.number(
                &format!("{path}.keep_at_least"),
                file.keep_at_least,
                default.keep_at_least,
                0..=i64::from(i32::MAX),
            ),
            hold: file.hold.unwrap_or(default.hold),
        };
        let is_sound = check.count() == mistakes;
        if is_sound && (hot_is_own || cold_is_own) && ages.cold_for.is_shorter_than(ages.hot_for) {
            let name = if cold_is_own { "cold_for" } else { "hot_for" };
            let (cold, hot) = (show_age(ages.cold_for), show_age(ages.hot_for));
            let mistake = Mistake::new(format!("cold_for, {cold}, is shorter than hot_for, {hot}"));
            check.refuse(
                &format!("{path}.{name}"),
                mistake.help("both count from the finish of a run: cold_for is how long it is kept in all"),
            );
        }
        if ages.max_open_for == Age::For(Duration::ZERO) {
            let mistake = Mistake::new("a window of no length");
            check.refuse(&format!("{path}.max_open_for"), mistake.help("write \"7d\", or \"forever\""));
        }
        ages
    }

    fn rule(
        self,
        name: RuleName,
        app: Option<GlobMatcher>,
        job: Option<GlobMatcher>,
        outcome: Option<Outcome>,
    ) -> Rule {
        let Self { hot_for, cold_for, max_open_for, keep_at_least, hold } = self;
        Rule { name, app, job, outcome, hot_for, cold_for, max_open_for, keep_at_least, hold }
    }
}

fn check_rule(file: file::Rule, path: &str, default: &Ages, check: &mut Checker<'_>) -> Option<Rule> {
    if file.name.is_none() {
        check.refuse(path, Mistake::new("a [[retention.rule]] without name").help("object keys carry it: give it one"));
    }
    let name = check.parse(&format!("{path}.name"), file.name, None, |name| parse_name(name).map(Some));
    let mut glob = |condition: &str, text| {
        check.parse(&format!("{path}.{condition}"), text, None, |text| parse_glob(text).map(Some))
    };
    let app = glob("app", file.app);
    let job = glob("job", file.job);
    let outcome = check.parse(&format!("{path}.outcome"), file.outcome, None, |word| {
        let known = ["succeeded", "failed", "cancelled"];
        word.parse().map(Some).map_err(|_| Mistake::new(format!("unknown outcome \"{word}\"")).suggest(word, known))
    });
    let ages = file::Ages {
        hot_for: file.hot_for,
        cold_for: file.cold_for,
        max_open_for: file.max_open_for,
        keep_at_least: file.keep_at_least,
        hold: file.hold,
    };
    let ages = Ages::check(ages, path, default, check);
    Some(ages.rule(name?, app, job, outcome))
}

fn parse_name(name: &str) -> Result<RuleName, Mistake> {
    if name == DEFAULT {
        return Err(Mistake::new("\"default\" is the rule of [retention.default]").help("give this rule another name"));
    }
    RuleName::checked(name).map_err(|error| Mistake::new(error.to_string()))
}

fn parse_glob(text: &str) -> Result<GlobMatcher, Mistake> {
    if text.is_empty() {
        return Err(Mistake::new("an empty pattern matches nothing").help("leave it out to match everything"));
    }
    Glob::new(text).map(|glob| glob.compile_matcher()).map_err(|error| {
        Mistake::new(error.to_string()).help("write *, ?, [a-z] or {a,b}; \\ before one of these means itself")
    })
}

/// Whether `earlier` surely takes everything that `later` matches. It may miss a case, when both
/// have patterns, but is never wrong.
fn covers(earlier: &Rule, later: &Rule) -> bool {
    // Every attempt has an app, but not every one has a job.
    let app = covers_names(earlier.app.as_ref(), later.app.as_ref()) || is_star(earlier.app.as_ref());
    let job = covers_names(earlier.job.as_ref(), later.job.as_ref());
    app && job && (earlier.outcome.is_none() || earlier.outcome == later.outcome)
}

fn covers_names(earlier: Option<&GlobMatcher>, later: Option<&GlobMatcher>) -> bool {
    match (earlier, later) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(earlier), Some(later)) => {
            let text = later.glob().glob();
            let is_literal = !text.contains(['*', '?', '[', ']', '{', '}', '\\']);
            earlier.glob() == later.glob() || is_star(Some(earlier)) || is_literal && earlier.is_match(text)
        }
    }
}

fn is_star(glob: Option<&GlobMatcher>) -> bool {
    glob.is_some_and(|glob| glob.glob().glob() == "*")
}
