//! What a search over everything has to look at: attempts in the hot tier, objects in the cold.

use std::sync::Arc;

use super::list::{ShardPage, merged};
use super::{Catalog, Kind, ListPage, Segment, SegmentId, SegmentState, sql_search};
use crate::db::{Db, Home, Result};
use crate::model::{App, AttemptId};

/// Attempts of one shard looked at at a time.
const HOT_PAGE: u32 = 200;

/// Objects listed at a time.
const SEGMENTS_PAGE: u32 = 1_000;

/// Where a list of objects goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentCursor {
    finish_day: i64,
    id: i64,
}

impl SegmentCursor {
    pub const START: Self = Self { finish_day: i32::MAX as i64, id: i64::MAX };

    pub fn at(segment: &Segment) -> Self {
        Self { finish_day: segment.finish_day, id: segment.id.get() }
    }
}

impl Catalog {
    /// Attempts made before `before` that have chunks in the hot tier, newest first. A page may hold
    /// none and still name a next one.
    pub async fn list_hot(&self, app: Option<&App>, before: Option<AttemptId>) -> Result<ListPage> {
        let homes = self.cluster.servers().iter().flat_map(|db| {
            db.shards().iter().map(move |&shard| self.hot_of_shard(Home { db: Arc::clone(db), shard }, app, before))
        });
        let pages = futures::future::try_join_all(homes).await?;
        merged(self, pages, usize::MAX).await
    }

    async fn hot_of_shard(&self, home: Home, app: Option<&App>, before: Option<AttemptId>) -> Result<ShardPage> {
        let app_id = match app {
            Some(app) => match self.find_name(&home.db, Kind::App, app.as_str()).await? {
                Some(id) => Some(id),
                None => return Ok((Vec::new(), None)),
            },
            None => None,
        };
        let below = before.map_or(i64::MAX, AttemptId::get);
        let query = sqlx::query_scalar(sqlx::AssertSqlSafe(sql_search::hot_attempts(home.shard)));
        let ids: Vec<i64> = query.bind(below).bind(i64::from(HOT_PAGE)).fetch_all(home.db.pool()).await?;
        let ids: Vec<AttemptId> = ids.into_iter().map(AttemptId::stored).collect();
        let stopped = ids.last().copied().filter(|_| ids.len() == HOT_PAGE as usize);
        let rows = self.attempts(&home, &ids).await?;
        let rows = rows.into_iter().filter(|row| app_id.is_none_or(|app_id| row.app_id == app_id));
        Ok((rows.map(|row| (Arc::clone(&home.db), row)).collect(), stopped))
    }

    /// Live objects of a server behind `after`, those of the latest day of finish first, and of one
    /// day the newest; fewer than `SEGMENTS_PAGE` only at the end.
    pub async fn live_segments(
        &self,
        db: &Arc<Db>,
        app: Option<&App>,
        after: SegmentCursor,
    ) -> Result<(Vec<Segment>, Option<SegmentCursor>)> {
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql_search::live_segments(app.is_some())));
        if let Some(app) = app {
            let Some(id) = self.find_name(db, Kind::App, app.as_str()).await? else { return Ok((Vec::new(), None)) };
            query = query.bind(id);
        }
        let query = query.bind(after.finish_day).bind(after.finish_day).bind(after.id).bind(i64::from(SEGMENTS_PAGE));
        let rows = query.fetch_all(db.pool()).await?;
        let segments = rows.iter().map(Segment::from_row).collect::<Result<Vec<_>>>()?;
        let next = segments.last().filter(|_| segments.len() == SEGMENTS_PAGE as usize).map(SegmentCursor::at);
        Ok((segments, next))
    }

    /// Whether an object is still the home of what it holds.
    pub async fn is_live(&self, db: &Arc<Db>, id: SegmentId) -> Result<bool> {
        let query = sqlx::query_scalar(sql_search::segment_state()).bind(id.get());
        let state: Option<i32> = query.fetch_optional(db.pool()).await?;
        Ok(state == Some(SegmentState::Live as i32))
    }

    /// The name of an app or rule of a server.
    pub async fn name(&self, db: &Arc<Db>, id: i32) -> Result<Arc<str>> {
        self.name_of(db, id).await
    }
}
