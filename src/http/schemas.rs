//! Shapes that no handler builds as one value: records, which travel as the bytes that they were
//! stored as, and problems. They exist for the OpenAPI document; tests hold answers against them.
#![allow(dead_code, reason = "read by a derive only")]

use serde::Serialize;
use utoipa::ToSchema;

/// RFC 9457. More members tell more of some problems, such as `next_line` of a conflict.
#[derive(Serialize, ToSchema)]
pub struct ProblemDocument {
    /// `urn:logtier:problem:` and a stable word.
    r#type: String,
    title: String,
    status: u16,
    /// For a person: what happened and what to do.
    detail: String,
    /// Leads to the daemon's log.
    request_id: String,
}

/// A record as it is read. What is not there has no member.
#[derive(Serialize, ToSchema)]
pub struct Record {
    line: u64,
    /// RFC 3339 in UTC with 3, 6 or 9 digits.
    ts: String,
    /// TRACE, DEBUG, INFO, WARN, ERROR or FATAL.
    #[schema(nullable = false)]
    level: Option<String>,
    #[schema(nullable = false)]
    source: Option<String>,
    message: String,
    #[schema(value_type = Option<Object>, nullable = false)]
    attrs: Option<()>,
    /// The message's bytes in base64, where they are no UTF-8.
    #[schema(nullable = false)]
    raw: Option<String>,
    /// The next record goes on with the same line.
    #[schema(nullable = false)]
    partial: Option<bool>,
}

/// A record as it is written. Members that are not named here are kept in `attrs`.
#[derive(Serialize, ToSchema)]
pub struct NewRecord {
    /// `default` if not given.
    app: Option<String>,
    job: Option<String>,
    /// Needed where the request names none.
    instance: Option<String>,
    /// 1 if not given.
    #[schema(minimum = 1)]
    attempt: Option<u32>,
    /// RFC 3339 or unix milliseconds; the time of arrival if not given.
    #[schema(value_type = Option<String>)]
    ts: Option<()>,
    /// A name or a number; one that nobody knows is kept in `attrs`.
    level: Option<String>,
    source: Option<String>,
    message: String,
    #[schema(value_type = Option<Object>)]
    attrs: Option<()>,
    #[schema(value_type = Option<Object>)]
    labels: Option<()>,
    /// Base64; stands for `message` where its bytes are no UTF-8.
    raw: Option<String>,
    partial: Option<bool>,
}

/// A page of records.
#[derive(Serialize, ToSchema)]
pub struct RecordPage {
    app: String,
    instance: String,
    attempt: u32,
    job: Option<String>,
    /// open, finished or archived.
    state: String,
    /// No more lines are expected.
    attempt_final: bool,
    records: Vec<Record>,
    /// Goes on behind this page, now or later, on any daemon.
    next_cursor: String,
    /// Nothing more is there now.
    at_end: bool,
}

/// A line of a search's answer: a find, or last the summary, without which the answer was cut.
#[derive(Serialize, ToSchema)]
pub struct SearchLine {
    #[schema(value_type = Option<Object>)]
    record: Option<()>,
    #[schema(value_type = Option<Object>)]
    summary: Option<()>,
}

/// A line of a download in NDJSON: a record and whose it is, without its number.
#[derive(Serialize, ToSchema)]
pub struct DownloadLine {
    app: String,
    job: Option<String>,
    instance: String,
    attempt: Option<u32>,
    #[schema(value_type = Option<Object>)]
    labels: Option<()>,
    ts: String,
    level: Option<String>,
    source: Option<String>,
    message: String,
    #[schema(value_type = Option<Object>)]
    attrs: Option<()>,
    raw: Option<String>,
    partial: Option<bool>,
}

/// The answer to a hold.
#[derive(Serialize, ToSchema)]
pub struct Hold {
    #[schema(value_type = String)]
    pub app: crate::model::App,
    #[schema(value_type = String)]
    pub instance: crate::model::Instance,
    pub hold: bool,
}

/// A run that has begun.
#[derive(Serialize, ToSchema)]
pub struct RunStarted {
    pub run_id: String,
}

/// A report for people; its members may grow.
#[derive(Serialize, ToSchema)]
#[schema(value_type = Object)]
pub struct Report(());
