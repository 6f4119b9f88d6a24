//! What there is to read: apps, jobs, attempts, and the objects that hold one.

use super::{ListFilter, ListPage, ReadError, Reader, View};
use crate::cold::ObjectName;
use crate::db;
use crate::model::{App, AttemptId, AttemptNo, Instance, RuleName};

impl Reader {
    /// Names of apps after `after`, in order, at most `limit`.
    pub async fn apps(&self, after: &str, limit: u32) -> Result<Vec<String>, ReadError> {
        Ok(self.catalog.apps(after, limit).await?)
    }

    /// Names of an app's jobs, in order, at most `limit` of each shard.
    pub async fn jobs(&self, app: &App, limit: u32) -> Result<Vec<String>, ReadError> {
        Ok(self.catalog.jobs(app, limit).await?)
    }

    /// Attempts made before `before`, newest first, at most `limit`.
    pub async fn instances(
        &self,
        filter: &ListFilter,
        before: Option<AttemptId>,
        limit: usize,
    ) -> Result<ListPage, ReadError> {
        let now = self.clock.now();
        Ok(self.catalog.list(filter, before, limit, now).await?)
    }

    /// The numbers of an instance's attempts, ascending; of more than `limit` the newest.
    pub async fn attempts(&self, app: &App, instance: &Instance, limit: u32) -> Result<Vec<AttemptNo>, ReadError> {
        let mut numbers = self.catalog.attempts_of(app, instance, limit).await?;
        numbers.sort();
        Ok(numbers)
    }

    /// The keys of the objects that hold an attempt's lines, at most `limit`, and the rule of the newest.
    pub async fn objects(&self, view: &View, limit: u32) -> Result<(Vec<String>, Option<RuleName>), ReadError> {
        let home = &view.snapshot.home;
        let (mut keys, mut newest) = (Vec::new(), None);
        for segment in self.catalog.segments_of(home, view.attempt.id, limit).await? {
            let rule = self.catalog.rule_name(home, segment.rule_id).await?;
            let rule: RuleName = rule.parse().map_err(|_| db::Error::Row(format!("rule name \"{rule}\"")))?;
            newest = Some(rule.clone());
            let name = ObjectName { app: view.app.clone(), rule, finish_day: segment.finish_day, ulid: segment.ulid };
            keys.push(name.key().to_string());
        }
        keys.dedup();
        Ok((keys, newest))
    }
}
