//! Retention rules: how long an attempt stays in which tier.

use std::time::Duration;

use globset::GlobMatcher;

use super::{App, Job, Outcome, RuleName};

/// A span that may have no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    For(Duration),
    Forever,
}

impl Age {
    pub fn longer(self, other: Self) -> Self {
        if self.is_shorter_than(other) { other } else { self }
    }

    pub fn is_shorter_than(self, other: Self) -> bool {
        match (self, other) {
            (Self::For(this), Self::For(that)) => this < that,
            (Self::For(_), Self::Forever) => true,
            (Self::Forever, _) => false,
        }
    }
}

/// One named rule. A condition that is `None` matches everything.
#[derive(Debug, Clone)]
pub struct Rule {
    pub name: RuleName,
    pub app: Option<GlobMatcher>,
    pub job: Option<GlobMatcher>,
    pub outcome: Option<Outcome>,
    /// How long after its finish an attempt stays in the hot tier.
    pub hot_for: Age,
    /// How long after its finish an attempt can be read at all.
    pub cold_for: Age,
    /// An attempt that is still open is archived in windows of this length.
    pub max_open_for: Age,
    /// So many of a job's newest runs stay, whatever their age.
    pub keep_at_least: u32,
    /// A legal hold: nothing of it expires or can be deleted.
    pub hold: bool,
}

impl Rule {
    fn matches(&self, app: &App, job: Option<&Job>, outcome: Option<Outcome>) -> bool {
        let job_matches = |glob: &GlobMatcher| job.is_some_and(|job| glob.is_match(job.as_str()));
        self.app.as_ref().is_none_or(|glob| glob.is_match(app.as_str()))
            && self.job.as_ref().is_none_or(job_matches)
            && self.outcome.is_none_or(|wanted| outcome == Some(wanted))
    }
}

/// All rules in order; the last one is `default` and matches everything.
#[derive(Debug, Clone)]
pub struct RuleSet {
    rules: Vec<Rule>,
    default: Rule,
}

impl RuleSet {
    /// `default`'s own conditions are not looked at.
    pub fn new(rules: Vec<Rule>, default: Rule) -> Self {
        Self { rules, default }
    }

    /// The first rule that matches.
    pub fn rule_for(&self, app: &App, job: Option<&Job>, outcome: Option<Outcome>) -> &Rule {
        self.rules.iter().find(|rule| rule.matches(app, job, outcome)).unwrap_or(&self.default)
    }

    pub fn get(&self, name: &RuleName) -> Option<&Rule> {
        self.iter().find(|rule| rule.name == *name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().chain(std::iter::once(&self.default))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, app: Option<&str>, job: Option<&str>, outcome: Option<Outcome>) -> Rule {
        let glob = |text: &str| globset::Glob::new(text).expect("a glob").compile_matcher();
        Rule {
            name: name.parse().expect("a name"),
            app: app.map(glob),
            job: job.map(glob),
            outcome,
            hot_for: Age::For(Duration::ZERO),
            cold_for: Age::Forever,
            max_open_for: Age::Forever,
            keep_at_least: 0,
            hold: false,
        }
    }

    #[test]
    fn the_first_match_wins() {
        let rules = RuleSet::new(
            vec![
                rule("failed", Some("billing"), Some("invoice-*"), Some(Outcome::Failed)),
                rule("billing", Some("bill*"), None, None),
            ],
            rule("default", None, None, None),
        );
        let check = |app: &str, job: Option<&str>, outcome, name: &str| {
            let job = job.map(|job| job.parse().expect("a job"));
            let found = rules.rule_for(&app.parse().expect("an app"), job.as_ref(), outcome);
            assert_eq!(found.name.as_str(), name);
        };
        check("billing", Some("invoice-eu"), Some(Outcome::Failed), "failed");
        check("billing", Some("invoice-eu"), Some(Outcome::Succeeded), "billing");
        check("billing", None, Some(Outcome::Failed), "billing");
        check("other", Some("invoice-eu"), Some(Outcome::Failed), "default");
    }

    #[test]
    fn forever_is_never_shorter() {
        let hour = Age::For(Duration::from_secs(3600));
        assert!(hour.is_shorter_than(Age::Forever) && !Age::Forever.is_shorter_than(hour));
    }
}
