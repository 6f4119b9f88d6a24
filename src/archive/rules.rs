//! Which retention rules count: one node's typo must not delete years.
//!
//! Each daemon has rules in its configuration. They count for what expires once all live daemons hold
//! to the same ones; then a run publishes them in the database. For `shrink_grace` after that, whatever
//! the rules before kept longer stays: ages only ever grow at once. A rule that was removed leaves its
//! ages, as last published, to what was archived under it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ArchiveError, Shared};
use crate::catalog::{Attempt, DAEMON_LIVES, Lease, RuleSetRow};
use crate::db::{self, Db};
use crate::model::{Age, App, Job, Millis, Outcome, Rule, RuleName, RuleSet};

/// What the rules say of one attempt.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ruling {
    pub name: RuleName,
    pub hot_for: Age,
    pub cold_for: Age,
    pub max_open_for: Age,
    pub keep_at_least: u32,
    pub hold: bool,
    /// The ages are those of this rule, which is in no configuration any more.
    pub removed: Option<RuleName>,
}

impl Ruling {
    fn of(rule: &Rule) -> Self {
        let Rule { name, hot_for, cold_for, max_open_for, keep_at_least, hold, .. } = rule.clone();
        Self { name, hot_for, cold_for, max_open_for, keep_at_least, hold, removed: None }
    }

    /// The same for an attempt that is to leave a hot tier under pressure now.
    pub fn early(self) -> Self {
        Self { hot_for: Age::For(Duration::ZERO), max_open_for: Age::For(Duration::ZERO), ..self }
    }
}

/// The rules that count on a server.
pub(super) struct RulesInForce {
    ours: Arc<RuleSet>,
    /// Sets that are not ours, whose longer ages count all the same.
    others: Vec<RuleSet>,
    /// Rules that are in no configuration any more, as last published.
    removed: HashMap<RuleName, Rule>,
    /// Why nothing expires for now.
    pub stop: Option<String>,
    /// Until when ages that were longer before the last change still count.
    pub grace_until: Option<Millis>,
    /// Changes whenever an attempt's age may have changed.
    pub version: String,
}

impl RulesInForce {
    /// What counts for an attempt; `archived_under` is the rule of its last part.
    pub fn ruling(
        &self,
        app: &App,
        job: Option<&Job>,
        outcome: Option<Outcome>,
        archived_under: Option<&RuleName>,
    ) -> Ruling {
        self.ruling_with(&self.others, app, job, outcome, archived_under)
    }

    fn ruling_with(
        &self,
        others: &[RuleSet],
        app: &App,
        job: Option<&Job>,
        outcome: Option<Outcome>,
        archived_under: Option<&RuleName>,
    ) -> Ruling {
        let mut ruling = Ruling::of(self.ours.rule_for(app, job, outcome));
        for other in others {
            let other = other.rule_for(app, job, outcome);
            ruling.cold_for = ruling.cold_for.longer(other.cold_for);
            ruling.keep_at_least = ruling.keep_at_least.max(other.keep_at_least);
            ruling.hold |= other.hold;
        }
        if let Some(name) = archived_under.filter(|name| self.ours.get(name).is_none()) {
            // One that nobody remembers keeps what it has for good: someone may delete it by name.
            let kept = self.removed.get(name);
            ruling.cold_for = kept.map_or(Age::Forever, |rule| rule.cold_for);
            ruling.keep_at_least = kept.map_or(0, |rule| rule.keep_at_least);
            ruling.removed = Some(name.clone());
        }
        ruling
    }

    /// The same, with everything that the row says.
    pub async fn ruling_of(
        &self,
        shared: &Shared,
        db: &Arc<Db>,
        app: &App,
        job: Option<&Job>,
        attempt: &Attempt,
    ) -> Result<Ruling, ArchiveError> {
        let archived_under: Option<RuleName> = shared.catalog.optional_name(db, attempt.rule_id).await?;
        Ok(self.ruling(app, job, attempt.outcome, archived_under.as_ref()))
    }

    /// The same once ages that were longer before the last change do not count any more; `None` where none do.
    pub async fn ruling_after_grace(
        &self,
        shared: &Shared,
        db: &Arc<Db>,
        app: &App,
        job: Option<&Job>,
        attempt: &Attempt,
    ) -> Result<Option<(Millis, Ruling)>, ArchiveError> {
        let Some(until) = self.grace_until else { return Ok(None) };
        let archived_under: Option<RuleName> = shared.catalog.optional_name(db, attempt.rule_id).await?;
        Ok(Some((until, self.ruling_with(&[], app, job, attempt.outcome, archived_under.as_ref()))))
    }

    /// What counts now, as far as it was agreed on before.
    pub async fn load(shared: &Shared, db: &Arc<Db>) -> Result<Self, ArchiveError> {
        let sets = shared.catalog.rule_sets(db).await?;
        let dissenter = dissenter(shared, db).await?;
        Self::new(shared, &sets, dissenter)
    }

    /// Publishes our rules if all agree on them; then what counts.
    pub async fn agree(shared: &Shared, db: &Arc<Db>, lease: &Lease) -> Result<Self, ArchiveError> {
        let mut sets = shared.catalog.rule_sets(db).await?;
        let dissenter = dissenter(shared, db).await?;
        let ours = rules_digest(&shared.settings.rules, shared.settings.shrink_grace);
        let is_published = sets.iter().any(|set| set.replaced_at.is_none() && set.digest == ours);
        if dissenter.is_none() && !is_published {
            let now = shared.clock.now();
            let mut new = vec![RuleSetRow {
                digest: ours,
                rules: StoredRules::of(&shared.settings.rules, shared.settings.shrink_grace).to_json(),
                published_at: now,
                replaced_at: None,
            }];
            if sets.is_empty() && shared.catalog.segment_summary(db, 1).await?.0 > 0 {
                // Someone had rules before, and this database does not know them.
                new.insert(0, keep_everything(now));
            }
            shared.catalog.publish_rules(db, lease, new, now).await?;
            tracing::info!("retention rules were published");
            sets = shared.catalog.rule_sets(db).await?;
        }
        Self::new(shared, &sets, dissenter)
    }

    fn new(shared: &Shared, sets: &[RuleSetRow], dissenter: Option<String>) -> Result<Self, ArchiveError> {
        let settings = &shared.settings;
        let (ours, now) = (rules_digest(&settings.rules, settings.shrink_grace), shared.clock.now());
        let mut version = blake3::Hasher::new();
        let (mut others, mut removed, mut grace_until, mut published) = (Vec::new(), HashMap::new(), None, None);
        version.update(ours.as_bytes());
        for set in sets {
            let rules = StoredRules::from_json(&set.rules)?;
            for rule in rules.iter().filter(|rule| settings.rules.get(&rule.name).is_none()) {
                removed.entry(rule.name.clone()).or_insert_with(|| rule.clone());
            }
            let until = set.replaced_at.map(|at| at.after(settings.shrink_grace));
            if until.is_none() {
                published = Some(&set.digest);
            }
            if set.digest != ours && until.is_none_or(|until| until > now) {
                version.update(set.digest.as_bytes());
                others.push(rules);
                grace_until = grace_until.max(until);
            }
        }
        let stop = match (dissenter, published) {
            (Some(name), _) => {
                Some(format!("daemon {name} holds to other retention rules; nothing expires until all agree"))
            }
            (None, Some(published)) if *published == ours => None,
            (None, _) => Some("these retention rules are not published yet; the next run does".to_owned()),
        };
        let version = version.finalize().to_hex()[..32].to_owned();
        Ok(Self { ours: Arc::clone(&settings.rules), others, removed, stop, grace_until, version })
    }
}

/// A live daemon with other rules than ours.
async fn dissenter(shared: &Shared, db: &Arc<Db>) -> Result<Option<String>, ArchiveError> {
    let since = Millis::new(shared.clock.now().get() - DAEMON_LIVES.as_millis() as i64);
    let daemons = shared.catalog.daemons(db, since).await?;
    let ours = rules_digest(&shared.settings.rules, shared.settings.shrink_grace);
    Ok(daemons.into_iter().find(|daemon| daemon.rules != ours).map(|daemon| daemon.name))
}

/// What daemons compare to know that they hold to the same rules.
pub fn rules_digest(rules: &RuleSet, shrink_grace: Duration) -> String {
    let stored = StoredRules::of(rules, shrink_grace).to_json();
    blake3::hash(stored.as_bytes()).to_hex()[..32].to_owned()
}

fn keep_everything(now: Millis) -> RuleSetRow {
    let rules = StoredRules { shrink_grace_ms: 0, rules: vec![StoredRule::forever()] };
    RuleSetRow { digest: "everything".to_owned(), rules: rules.to_json(), published_at: now, replaced_at: Some(now) }
}

/// Rules as the database holds them. The last one is `default`.
#[derive(Debug, Serialize, Deserialize)]
struct StoredRules {
    shrink_grace_ms: u64,
    rules: Vec<StoredRule>,
}

/// An age that is missing is forever.
#[derive(Debug, Serialize, Deserialize)]
struct StoredRule {
    name: String,
    app: Option<String>,
    job: Option<String>,
    outcome: Option<String>,
    hot_for_ms: Option<u64>,
    cold_for_ms: Option<u64>,
    max_open_for_ms: Option<u64>,
    keep_at_least: u32,
    hold: bool,
}

impl StoredRules {
    fn of(rules: &RuleSet, shrink_grace: Duration) -> Self {
        Self { shrink_grace_ms: shrink_grace.as_millis() as u64, rules: rules.iter().map(StoredRule::of).collect() }
    }

    fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    fn from_json(json: &str) -> Result<RuleSet, db::Error> {
        let unreadable = |what: String| db::Error::Row(format!("published retention rules: {what}"));
        let stored: Self = serde_json::from_str(json).map_err(|error| unreadable(error.to_string()))?;
        let rules = stored.rules.into_iter().map(StoredRule::into_rule).collect::<Result<Vec<_>, _>>();
        let mut rules = rules.map_err(unreadable)?;
        let default = rules.pop().ok_or_else(|| unreadable("there are none".to_owned()))?;
        Ok(RuleSet::new(rules, default))
    }
}

impl StoredRule {
    fn of(rule: &Rule) -> Self {
        let glob = |glob: &Option<globset::GlobMatcher>| glob.as_ref().map(|glob| glob.glob().glob().to_owned());
        Self {
            name: rule.name.to_string(),
            app: glob(&rule.app),
            job: glob(&rule.job),
            outcome: rule.outcome.map(|outcome| outcome.to_string()),
            hot_for_ms: millis(rule.hot_for),
            cold_for_ms: millis(rule.cold_for),
            max_open_for_ms: millis(rule.max_open_for),
            keep_at_least: rule.keep_at_least,
            hold: rule.hold,
        }
    }

    fn forever() -> Self {
        Self {
            name: "default".to_owned(),
            app: None,
            job: None,
            outcome: None,
            hot_for_ms: None,
            cold_for_ms: None,
            max_open_for_ms: None,
            keep_at_least: 0,
            hold: false,
        }
    }

    fn into_rule(self) -> Result<Rule, String> {
        let glob = |text: Option<String>| {
            let glob = text.map(|text| globset::Glob::new(&text).map(|glob| glob.compile_matcher()));
            glob.transpose().map_err(|error| error.to_string())
        };
        Ok(Rule {
            name: self.name.parse().map_err(|_| format!("a rule called \"{}\"", self.name))?,
            app: glob(self.app)?,
            job: glob(self.job)?,
            outcome: self
                .outcome
                .map(|word| word.parse())
                .transpose()
                .map_err(|error: crate::model::UnknownWord| error.to_string())?,
            hot_for: age(self.hot_for_ms),
            cold_for: age(self.cold_for_ms),
            max_open_for: age(self.max_open_for_ms),
            keep_at_least: self.keep_at_least,
            hold: self.hold,
        })
    }
}

fn millis(age: Age) -> Option<u64> {
    match age {
        Age::For(span) => Some(span.as_millis() as u64),
        Age::Forever => None,
    }
}

fn age(millis: Option<u64>) -> Age {
    millis.map_or(Age::Forever, |millis| Age::For(Duration::from_millis(millis)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, app: Option<&str>, cold_for: Age) -> Rule {
        Rule {
            name: name.parse().expect("a name"),
            app: app.map(|glob| globset::Glob::new(glob).expect("a glob").compile_matcher()),
            job: None,
            outcome: Outcome::from_code(2).filter(|_| app.is_some()),
            hot_for: Age::For(Duration::from_millis(5)),
            cold_for,
            max_open_for: Age::Forever,
            keep_at_least: 3,
            hold: app.is_some(),
        }
    }

    #[test]
    fn rules_round_trip_and_their_digest_tells_them_apart() {
        let day = Duration::from_secs(86_400);
        let rules = RuleSet::new(vec![rule("a", Some("x-{1,2}"), Age::Forever)], rule("default", None, Age::For(day)));
        let json = StoredRules::of(&rules, day).to_json();
        let again = StoredRules::from_json(&json).expect("rules");
        assert_eq!(StoredRules::of(&again, day).to_json(), json);
        assert_eq!(rules_digest(&again, day), rules_digest(&rules, day));
        assert_ne!(rules_digest(&rules, day), rules_digest(&rules, day * 2));
        let other = RuleSet::new(Vec::new(), rule("default", None, Age::For(day)));
        assert_ne!(rules_digest(&rules, day), rules_digest(&other, day));
        assert!(StoredRules::from_json("{}").is_err() && StoredRules::from_json("").is_err());
    }
}
