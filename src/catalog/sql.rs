//! Every statement of the catalog. Each begins with a comment that names its function, so that a
//! slow-query log leads back to the code.

use crate::db::{Db, Engine, Shard};

pub(super) const ATTEMPT_COLUMNS: &str = "a.id, a.app_id, a.instance, a.attempt, a.job_id, a.labels, a.state, a.outcome, \
     a.held, a.meta_version, a.archived_meta, a.next_line, a.archived_line, a.purged_line, a.trimmed_line, \
     a.raw_bytes, a.archived_bytes, a.first_ts, a.last_ts, a.levels, a.created_at, a.written_at, \
     a.finished_at, a.published_at, a.expires_at, a.gone_at, a.failures, a.rule_id, a.due_at";

pub(super) const SEGMENT_COLUMNS: &str = "s.id AS s_id, s.ulid AS s_ulid, s.app_id AS s_app_id, s.rule_id AS s_rule_id, \
     s.finish_day AS s_finish_day, s.state AS s_state, s.byte_length AS s_byte_length, \
     s.index_offset AS s_index_offset, s.frames_offset AS s_frames_offset, \
     s.filter_offset AS s_filter_offset, s.doomed_at AS s_doomed_at";

const USE_COLUMNS: &str = "s.hash AS s_hash, s.entries, s.dead_entries, s.line_count, s.dead_lines, \
     s.written_entries, s.written_lines, s.deleted_lines, s.deleted_at, s.died_at, s.created_at, s.failures, s.due_at";

const PART_COLUMNS: &str = "p.first_line AS p_first_line, p.line_count AS p_line_count, \
     p.byte_offset AS p_byte_offset, p.byte_length AS p_byte_length, p.skip AS p_skip, \
     p.first_ts AS p_first_ts, p.last_ts AS p_last_ts, p.levels AS p_levels, p.frames AS p_frames";

/// `row` repeated, with `between`.
pub(super) fn repeat(row: &str, between: &str, times: usize) -> String {
    vec![row; times].join(between)
}

// Names.

pub(super) fn find_name() -> &'static str {
    "/* catalog::find_name */ SELECT id FROM name WHERE kind = ? AND name = ?"
}

pub(super) fn name_of() -> &'static str {
    "/* catalog::name_of */ SELECT kind, name FROM name WHERE id = ?"
}

pub(super) fn insert_name() -> &'static str {
    "/* catalog::name_number */ INSERT INTO name (id, kind, name) \
     SELECT COALESCE(MAX(id), 0) + 1, ?, ? FROM name"
}

pub(super) fn names() -> &'static str {
    "/* catalog::apps */ SELECT name FROM name WHERE kind = ? AND name > ? ORDER BY name LIMIT ?"
}

/// Grouped by the index's first two columns, else MySQL walks all entries of the app instead of jumping.
pub(super) fn jobs(shard: Shard) -> String {
    format!("/* catalog::jobs */ SELECT job_id FROM attempt_{shard} WHERE app_id = ? GROUP BY app_id, job_id LIMIT ?")
}

// Leases.

/// The two statements that take a lease.
#[derive(Clone)]
pub(super) struct TakeLease {
    pub insert: String,
    pub take: String,
}

impl TakeLease {
    pub fn new(db: &Db) -> Self {
        let on_duplicate = db.engine().on_duplicate("task");
        Self {
            insert: format!(
                "/* catalog::lease_take */ INSERT INTO lease (task, owner, fence, expires_at) \
                 VALUES (?, '', 0, 0) {on_duplicate} fence = fence"
            ),
            take: format!(
                "/* catalog::lease_take */ UPDATE lease SET owner = ?, fence = fence + 1, \
                 expires_at = {now} + ? WHERE task = ? AND expires_at <= {now}",
                now = db.now_sql()
            ),
        }
    }
}

pub(super) fn lease_fence() -> &'static str {
    "/* catalog::lease_take */ SELECT fence FROM lease WHERE task = ?"
}

pub(super) fn renew_lease(db: &Db) -> String {
    format!(
        "/* catalog::lease_renew */ UPDATE lease SET expires_at = {now} + ? \
         WHERE task = ? AND owner = ? AND fence = ? AND expires_at > {now}",
        now = db.now_sql()
    )
}

pub(super) fn release_lease() -> &'static str {
    "/* catalog::lease_release */ UPDATE lease SET expires_at = 0 WHERE task = ? AND owner = ? AND fence = ?"
}

/// An UPDATE, because it must lock the row until the transaction ends.
pub(super) fn assert_lease(db: &Db) -> String {
    format!(
        "/* catalog::lease_assert */ UPDATE lease SET fence = fence \
         WHERE task = ? AND owner = ? AND fence = ? AND expires_at > {}",
        db.now_sql()
    )
}

// Batch keys.

pub(super) fn find_batches(shard: Shard, keys: usize) -> String {
    format!(
        "/* catalog::batches_find */ SELECT key_hash, content_hash, attempt_id, first_line, line_count \
         FROM batch_{shard} WHERE key_hash IN ({})",
        repeat("?", ", ", keys)
    )
}

pub(super) fn insert_batches(shard: Shard, rows: usize) -> String {
    format!(
        "/* catalog::batches_insert */ INSERT INTO batch_{shard} \
         (key_hash, content_hash, attempt_id, first_line, line_count, seen_at) VALUES {}",
        repeat("(?, ?, ?, ?, ?, ?)", ", ", rows)
    )
}

pub(super) fn old_batches(shard: Shard) -> String {
    format!(
        "/* catalog::batches_forget */ SELECT key_hash FROM batch_{shard} WHERE seen_at < ? ORDER BY seen_at LIMIT ?"
    )
}

pub(super) fn delete_batches(shard: Shard, keys: usize) -> String {
    format!(
        "/* catalog::batches_forget */ DELETE FROM batch_{shard} WHERE key_hash IN ({}) AND seen_at < ?",
        repeat("?", ", ", keys)
    )
}

// Attempts.

/// By natural key: OR of equalities, which every engine turns into point look-ups.
pub(super) fn attempts_by_key(shard: Shard, keys: usize) -> String {
    format!(
        "/* catalog::attempts_by_key */ SELECT {ATTEMPT_COLUMNS} FROM attempt_{shard} a WHERE {}",
        repeat("(a.app_id = ? AND a.instance = ? AND a.attempt = ?)", " OR ", keys)
    )
}

pub(super) fn attempts_by_id(shard: Shard, ids: usize) -> String {
    format!(
        "/* catalog::attempts_by_id */ SELECT {ATTEMPT_COLUMNS} FROM attempt_{shard} a WHERE a.id IN ({})",
        repeat("?", ", ", ids)
    )
}

/// Creates attempts or extends them. Assignments read a column before they change it, because
/// MySQL sees new values from left to right.
pub(super) fn upsert_attempts(engine: Engine, shard: Shard, rows: usize) -> String {
    let new = |column| engine.offered(column);
    let (lines, job, labels, due) = (new("next_line"), new("job_id"), new("labels"), new("due_at"));
    let (first, last, written) = (new("first_ts"), new("last_ts"), new("written_at"));
    // An attempt whose finish was only inferred is open again with the next line.
    // written_at never goes back: a writer that stood still for days would make the attempt look idle.
    let reopens = format!("state = 2 AND {lines} > 0");
    let gets_job = format!("job_id = 0 AND {job} <> 0");
    // MySQL assigns from left to right: what opens again is open here.
    let (id, told) = (new("id"), engine.told(&format!("next_line + {lines}")));
    let gets_labels = format!("LENGTH(labels) = 0 AND LENGTH({labels}) > 0");
    format!(
        "/* catalog::reserve */ INSERT INTO attempt_{shard} \
         (id, app_id, instance, attempt, job_id, labels, next_line, raw_bytes, first_ts, last_ts, levels, \
          created_at, written_at, due_at, state, outcome, held, meta_version, archived_meta, archived_line, \
          purged_line, trimmed_line, archived_bytes, failures) VALUES {rows} {on_duplicate} \
         due_at = CASE WHEN {lines} = 0 THEN due_at \
             WHEN state = 1 AND due_at > {written} THEN {written} \
             WHEN state <> 1 AND due_at > {due} THEN {due} ELSE due_at END, \
         meta_version = meta_version + CASE WHEN {gets_job} THEN 1 ELSE 0 END \
             + CASE WHEN {gets_labels} THEN 1 ELSE 0 END + CASE WHEN {reopens} THEN 1 ELSE 0 END, \
         job_id = CASE WHEN {gets_job} THEN {job} ELSE job_id END, \
         labels = CASE WHEN {gets_labels} THEN {labels} ELSE labels END, \
         first_ts = CASE WHEN first_ts IS NULL OR {first} < first_ts THEN {first} ELSE first_ts END, \
         last_ts = CASE WHEN last_ts IS NULL OR {last} > last_ts THEN {last} ELSE last_ts END, \
         levels = levels | {levels}, \
         written_at = CASE WHEN {lines} > 0 AND {written} > written_at THEN {written} ELSE written_at END, \
         finished_at = CASE WHEN {reopens} THEN NULL ELSE finished_at END, \
         expires_at = CASE WHEN {reopens} THEN NULL ELSE expires_at END, \
         state = CASE WHEN {reopens} THEN 0 ELSE state END, \
         raw_bytes = raw_bytes + {bytes}, \
         next_line = CASE WHEN id = {id} AND state = 0 THEN {told} ELSE next_line + {lines} END",
        rows = repeat("(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)", ", ", rows),
        on_duplicate = engine.on_duplicate("app_id, instance, attempt"),
        levels = new("levels"),
        bytes = new("raw_bytes"),
    )
}

/// When it expires was known if its finish had been inferred and its lines archived; it counts from
/// the finish that the client says, and by the rule of its outcome.
pub(super) fn finish_attempt(shard: Shard) -> String {
    format!(
        "/* catalog::finish */ UPDATE attempt_{shard} SET state = ?, outcome = ?, finished_at = ?, expires_at = NULL, \
         meta_version = ?, due_at = CASE WHEN due_at > ? THEN ? ELSE due_at END WHERE id = ?"
    )
}

/// The condition that a row is as it was when a decision was made on it; see `Seen`.
pub(super) const UNCHANGED: &str = "id = ? AND due_at = ? AND next_line = ? AND meta_version = ?";

/// The index is named, because MySQL reads and sorts the whole table for every page when much is due.
pub(super) fn due_attempts(engine: Engine, shard: Shard) -> String {
    format!(
        "/* catalog::due */ SELECT {ATTEMPT_COLUMNS} FROM attempt_{shard} a {index} \
         WHERE a.due_at >= ? AND a.due_at <= ? AND (a.due_at > ? OR a.id > ?) ORDER BY a.due_at, a.id LIMIT ?",
        index = engine.with_index(&shard.table("attempt_due"))
    )
}

pub(super) fn due_summary(engine: Engine, shard: Shard) -> String {
    format!(
        "/* catalog::due_summary */ SELECT COUNT(*) AS attempts, MIN(due_at) AS oldest FROM \
         (SELECT due_at FROM attempt_{shard} {index} WHERE due_at <= ? ORDER BY due_at LIMIT ?) due",
        index = engine.with_index(&shard.table("attempt_due"))
    )
}

pub(super) fn next_due(shard: Shard) -> String {
    format!("/* catalog::next_due */ SELECT due_at FROM attempt_{shard} WHERE due_at > ? ORDER BY due_at LIMIT 1")
}

pub(super) fn infer_finish(shard: Shard) -> String {
    // The conditions are read before the assignments change what they look at: WHERE comes first.
    format!(
        "/* catalog::infer_finish */ UPDATE attempt_{shard} SET state = 2, finished_at = ?, \
         meta_version = meta_version + 1 WHERE {UNCHANGED} AND state = 0"
    )
}

/// Rows that changed since they were seen stay due. `due_at` is assigned last, as its new value is what a
/// condition would read on MySQL.
pub(super) fn purged(shard: Shard, attempts: usize) -> String {
    format!(
        "/* catalog::purged */ UPDATE attempt_{shard} SET purged_line = CASE {} ELSE purged_line END, \
         due_at = CASE {} ELSE due_at END WHERE id IN ({})",
        repeat("WHEN id = ? AND purged_line < ? THEN ?", " ", attempts),
        repeat(&format!("WHEN {UNCHANGED} THEN ?"), " ", attempts),
        repeat("?", ", ", attempts)
    )
}

pub(super) fn attempt_numbers(shard: Shard) -> String {
    format!(
        "/* catalog::attempts_of */ SELECT attempt FROM attempt_{shard} \
         WHERE app_id = ? AND instance = ? ORDER BY attempt DESC LIMIT ?"
    )
}

/// By the index in whose order the ids stand already: MariaDB now and then reads all of an app and sorts.
pub(super) fn list_attempts(engine: Engine, shard: Shard, by_app: bool, by_job: bool) -> String {
    let (index, condition) = match (by_app, by_job) {
        (false, false) => (None, ""),
        (true, false) => (Some("attempt_app"), "a.app_id = ? AND"),
        (false, true) => (Some("attempt_any_job"), "a.job_id = ? AND"),
        (true, true) => (Some("attempt_job"), "a.app_id = ? AND a.job_id = ? AND"),
    };
    let index = index.map_or_else(String::new, |index| engine.with_index(&shard.table(index)));
    format!(
        "/* catalog::list */ SELECT {ATTEMPT_COLUMNS} FROM attempt_{shard} a {index} \
         WHERE {condition} a.id < ? ORDER BY a.id DESC LIMIT ?"
    )
}

pub(super) fn newer_runs(shard: Shard) -> String {
    format!(
        "/* catalog::newer_runs */ SELECT id FROM attempt_{shard} \
         WHERE app_id = ? AND job_id = ? AND id > ? AND state NOT IN (3, 4) ORDER BY id LIMIT ?"
    )
}

/// The attempt and its parts in a range, in one SELECT.
pub(super) fn snapshot(shard: Shard, one_attempt: bool) -> String {
    let which = if one_attempt {
        "a.attempt = ?".to_owned()
    } else {
        format!("a.attempt = (SELECT MAX(attempt) FROM attempt_{shard} WHERE app_id = ? AND instance = ?)")
    };
    format!(
        "/* catalog::snapshot */ SELECT {ATTEMPT_COLUMNS}, {PART_COLUMNS}, {SEGMENT_COLUMNS} \
         FROM attempt_{shard} a \
         LEFT JOIN part_{shard} p ON p.attempt_id = a.id AND p.first_line < ? \
             AND p.first_line + p.line_count > ? AND p.line_count > 0 \
         LEFT JOIN segment s ON s.id = p.segment_id \
         WHERE a.app_id = ? AND a.instance = ? AND {which} ORDER BY p.first_line LIMIT ?"
    )
}

// The end of an attempt.

pub(super) fn retire_attempt(shard: Shard) -> String {
    format!(
        "/* catalog::retire */ UPDATE attempt_{shard} SET state = ?, gone_at = ?, due_at = ?, \
         meta_version = meta_version + 1 WHERE {UNCHANGED} AND held = 0 AND state IN (1, 2)"
    )
}

pub(super) fn delete_attempt(shard: Shard) -> String {
    format!(
        "/* catalog::delete */ UPDATE attempt_{shard} SET state = 4, gone_at = ?, due_at = ?, \
         meta_version = meta_version + 1 WHERE id = ? AND held = 0 AND state NOT IN (3, 4)"
    )
}

pub(super) fn is_held(shard: Shard) -> String {
    format!("/* catalog::delete */ SELECT held FROM attempt_{shard} WHERE id = ?")
}

pub(super) fn set_hold(shard: Shard) -> String {
    format!(
        "/* catalog::set_hold */ UPDATE attempt_{shard} SET held = ?, meta_version = meta_version + 1, \
         due_at = CASE WHEN due_at > ? THEN ? ELSE due_at END WHERE id = ? AND state NOT IN (3, 4)"
    )
}

pub(super) fn forget_attempt(shard: Shard) -> String {
    format!("/* catalog::forget */ DELETE FROM attempt_{shard} WHERE id = ? AND state IN (3, 4)")
}

pub(super) fn parts_of(shard: Shard) -> String {
    format!("/* catalog::retire */ SELECT segment_id, line_count FROM part_{shard} WHERE attempt_id = ?")
}

pub(super) fn delete_parts(shard: Shard) -> String {
    format!("/* catalog::retire */ DELETE FROM part_{shard} WHERE attempt_id = ?")
}

// Segments and their publication.

pub(super) fn insert_segment() -> &'static str {
    "/* catalog::plan_segment */ INSERT INTO segment (id, ulid, app_id, rule_id, finish_day, state, task, fence, \
     entries, dead_entries, line_count, dead_lines, created_at, due_at) VALUES (?, ?, ?, ?, ?, 0, ?, ?, 0, 0, 0, 0, ?, ?)"
}

/// A segment of which the last entry goes is doomed in the same statement. The sweeper looks at
/// the others, too: one may be due to be rewritten.
pub(super) fn count_dead() -> &'static str {
    "/* catalog::count_dead */ UPDATE segment SET \
     doomed_at = CASE WHEN dead_entries + ? >= entries THEN ? ELSE doomed_at END, \
     state = CASE WHEN dead_entries + ? >= entries THEN 2 ELSE state END, \
     due_at = CASE WHEN due_at > ? THEN ? ELSE due_at END, died_at = ?, \
     deleted_at = COALESCE(deleted_at, ?), deleted_lines = deleted_lines + ?, \
     dead_entries = dead_entries + ?, dead_lines = dead_lines + ? WHERE id = ?"
}

pub(super) fn due_segments(engine: Engine) -> String {
    format!(
        "/* catalog::due_segments */ SELECT {SEGMENT_COLUMNS}, {USE_COLUMNS} FROM segment s {index} \
         WHERE s.due_at <= ? ORDER BY s.due_at, s.id LIMIT ?",
        index = engine.with_index("segment_due")
    )
}

pub(super) fn doom_upload() -> &'static str {
    "/* catalog::doom_upload */ UPDATE segment SET state = 2, doomed_at = ?, due_at = ? WHERE id = ? AND state = 0"
}

pub(super) fn doom_empty() -> &'static str {
    "/* catalog::doom_empty */ UPDATE segment SET state = 2, doomed_at = ?, due_at = ? \
     WHERE id = ? AND state = 1 AND dead_entries >= entries"
}

pub(super) fn postpone_segment() -> &'static str {
    "/* catalog::postpone_segment */ UPDATE segment SET due_at = ?, failures = ? \
     WHERE id = ? AND state = ? AND due_at = ? AND dead_entries = ?"
}

pub(super) fn delete_segment() -> &'static str {
    "/* catalog::forget_segment */ DELETE FROM segment WHERE id = ? AND state = 2"
}

pub(super) fn segment_summary() -> &'static str {
    "/* catalog::segment_summary */ SELECT COUNT(*) AS segments, CAST(COALESCE(SUM(byte_length), 0) AS SIGNED) \
     AS segment_bytes FROM (SELECT byte_length FROM segment WHERE state = 1 LIMIT ?) live"
}

pub(super) fn segments_of(shard: Shard) -> String {
    format!(
        "/* catalog::segments_of */ SELECT {SEGMENT_COLUMNS} FROM part_{shard} p JOIN segment s ON s.id = p.segment_id \
         WHERE p.attempt_id = ? ORDER BY p.first_line LIMIT ?"
    )
}

// Daemons, tasks, runs.

pub(super) fn upsert_daemon(engine: Engine) -> String {
    format!(
        "/* catalog::heartbeat */ INSERT INTO daemon (name, rules, version, started_at, seen_at) \
         VALUES (?, ?, ?, ?, ?) {} rules = {}, version = {}, seen_at = {}",
        engine.on_duplicate("name"),
        engine.offered("rules"),
        engine.offered("version"),
        engine.offered("seen_at")
    )
}

pub(super) fn daemons() -> &'static str {
    "/* catalog::daemons */ SELECT name, rules, version, started_at, seen_at FROM daemon \
     WHERE seen_at >= ? ORDER BY name LIMIT 1000"
}

pub(super) fn delete_daemons() -> &'static str {
    "/* catalog::forget_daemons */ DELETE FROM daemon WHERE name = ? OR seen_at < ?"
}

pub(super) fn upsert_task(engine: Engine) -> String {
    let new = |column| engine.offered(column);
    format!(
        "/* catalog::task_ended */ INSERT INTO task (name, succeeded_at, failed_at, error) VALUES (?, ?, ?, ?) {} \
         error = CASE WHEN {failed} > 0 THEN {error} ELSE error END, \
         succeeded_at = CASE WHEN {ok} > 0 THEN {ok} ELSE succeeded_at END, \
         failed_at = CASE WHEN {failed} > 0 THEN {failed} ELSE failed_at END",
        engine.on_duplicate("name"),
        failed = new("failed_at"),
        ok = new("succeeded_at"),
        error = new("error"),
    )
}

pub(super) fn leases() -> &'static str {
    "/* catalog::leases */ SELECT task, owner, expires_at FROM lease ORDER BY task LIMIT 100"
}

pub(super) fn tasks() -> &'static str {
    "/* catalog::tasks */ SELECT name, succeeded_at, failed_at, error FROM task ORDER BY name LIMIT 100"
}

pub(super) fn upsert_run(engine: Engine) -> String {
    format!(
        "/* catalog::put_run */ INSERT INTO run (id, daemon, started_at, finished_at, report) VALUES (?, ?, ?, ?, ?) \
         {} finished_at = {}, report = {}",
        engine.on_duplicate("id"),
        engine.offered("finished_at"),
        engine.offered("report")
    )
}

pub(super) fn runs() -> &'static str {
    "/* catalog::runs */ SELECT id, daemon, started_at, finished_at, report FROM run \
     WHERE id >= ? AND id <= ? ORDER BY id DESC LIMIT ?"
}

pub(super) fn delete_runs() -> &'static str {
    "/* catalog::forget_runs */ DELETE FROM run WHERE id < ?"
}

/// What a shard's chunks take. MySQL has estimates; on SQLite they are counted, up to 10,000.
pub(super) fn chunk_table_size(engine: Engine, shard: Shard) -> String {
    match engine {
        Engine::MySql => format!(
            "/* catalog::hot_size */ SELECT CAST(table_rows AS SIGNED) AS chunks, \
             CAST(data_length AS SIGNED) AS chunk_bytes FROM information_schema.tables \
             WHERE table_schema = DATABASE() AND table_name = 'chunk_{shard}'"
        ),
        Engine::Sqlite => format!(
            "/* catalog::hot_size */ SELECT COUNT(*) AS chunks, COALESCE(SUM(LENGTH(data)), 0) AS chunk_bytes \
             FROM (SELECT data FROM chunk_{shard} LIMIT 10000)"
        ),
    }
}
