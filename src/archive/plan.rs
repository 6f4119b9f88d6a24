//! The second verb: choose a name for an object and commit it, before its first byte goes out.

use std::sync::Arc;

use super::candidates::Group;
use super::{ArchiveError, Shared};
use crate::catalog::{Kind, Lease, NewSegment, SegmentId};
use crate::cold::{Key, ObjectName};
use crate::db::Db;
use crate::model::App;

/// An object that may be uploaded: its row is committed.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) segment: SegmentId,
    pub(super) key: Key,
    pub(super) app: App,
    pub(super) rule_id: i32,
}

pub(super) async fn plan(shared: &Shared, db: &Arc<Db>, lease: &Lease, group: &Group) -> Result<Planned, ArchiveError> {
    let now = shared.clock.now();
    let ulid = shared.clock.new_ulid();
    let name = ObjectName { app: group.app.clone(), rule: group.rule.clone(), finish_day: group.finish_day, ulid };
    let rule_id = shared.catalog.name_number(db, Kind::Rule, group.rule.as_str()).await?;
    let new = NewSegment {
        ulid,
        app_id: group.app_id,
        rule_id,
        finish_day: group.finish_day,
        abandoned_at: now.after(shared.settings.abandoned_after),
    };
    let segment = shared.catalog.plan_segment(db, lease, new, now).await?;
    Ok(Planned { segment, key: name.key(), app: group.app.clone(), rule_id })
}
