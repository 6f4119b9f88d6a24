//! One consistent look at an attempt: its row and the parts of a range, in one SELECT.
//!
//! Two statements under READ COMMITTED can see a watermark without the parts below it; a long
//! read transaction keeps InnoDB from purging. One statement does neither.

use std::sync::Arc;

use super::{Attempt, Catalog, Kind, Part, sql};
use crate::db::{Home, Result};
use crate::model::{App, AttemptNo, Instance, LineRange};

/// What the catalog said of an attempt at one moment.
#[derive(Clone)]
pub struct Snapshot {
    pub home: Home,
    pub attempt: Attempt,
    /// Parts that touch the range asked for, in line order, at most [`MAX_PARTS`]. Where there are
    /// more, the reader goes on with another snapshot behind the last.
    pub parts: Vec<Part>,
}

/// A page or a stream rarely touches more than one; a never-ending attempt has one each window.
pub const MAX_PARTS: u32 = 64;

impl Catalog {
    /// The attempt and its parts in `range`; the newest attempt where none is named.
    /// `None` means that no such attempt exists now.
    pub async fn snapshot(
        &self,
        app: &App,
        instance: &Instance,
        attempt: Option<AttemptNo>,
        range: LineRange,
    ) -> Result<Option<Snapshot>> {
        let home = self.cluster.home(app, instance);
        let Some(app_id) = self.find_name(&home.db, Kind::App, app.as_str()).await? else {
            return Ok(None);
        };
        let instance = instance.as_bytes().to_vec();
        let end = i64::try_from(range.end()).unwrap_or(i64::MAX);
        let start = i64::try_from(range.start()).unwrap_or(i64::MAX);
        let statement = sqlx::AssertSqlSafe(sql::snapshot(home.shard, attempt.is_some()));
        let query = sqlx::query(statement).bind(end).bind(start).bind(app_id).bind(instance.clone());
        let query = match attempt {
            Some(attempt) => query.bind(attempt.get() as i32),
            None => query.bind(app_id).bind(instance),
        };
        let rows = query.bind(i64::from(MAX_PARTS)).fetch_all(home.db.pool()).await?;
        let Some(first) = rows.first() else {
            return Ok(None);
        };
        let parts = rows.iter().filter_map(|row| Part::from_row(row).transpose()).collect::<Result<_>>()?;
        Ok(Some(Snapshot { attempt: Attempt::from_row(first)?, parts, home }))
    }

    /// The attempts of an instance, by number, at most `limit`, newest first.
    pub async fn attempts_of(&self, app: &App, instance: &Instance, limit: u32) -> Result<Vec<AttemptNo>> {
        let home = self.cluster.home(app, instance);
        let Some(app_id) = self.find_name(&home.db, Kind::App, app.as_str()).await? else {
            return Ok(Vec::new());
        };
        let query = sqlx::query_scalar(sqlx::AssertSqlSafe(sql::attempt_numbers(home.shard)))
            .bind(app_id)
            .bind(instance.as_bytes())
            .bind(i64::from(limit));
        let numbers: Vec<i32> = query.fetch_all(home.db.pool()).await?;
        Ok(numbers.into_iter().filter_map(|number| i64::from(number).try_into().ok()).collect())
    }

    /// The name of the rule that an object's key carries.
    pub async fn rule_name(&self, home: &Home, rule_id: i32) -> Result<Arc<str>> {
        self.name_of(&home.db, rule_id).await
    }
}
