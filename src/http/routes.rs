//! All calls of the API in one table: what is routed, and what the OpenAPI document says of it.

use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, on};
use std::sync::Arc;

use super::declare::{self, DeclareAnswer, DeclareBody, FinishBody};
use super::lists::{self, AppList, InstanceList, JobList};
use super::openapi::{Shape, openapi};
use super::schemas::{DownloadLine, Hold, NewRecord, RecordPage, Report, RunStarted, SearchLine};
use super::shown::Summary;
use super::write::{self, AppendAnswer, BulkAnswer};
use super::{Shared, admin, download, follow, marks, query, read, search};

/// What a query parameter may hold.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Text,
    /// An id: 1 to 255 bytes.
    Name,
    /// May be given several times.
    Texts,
    Number(u64, u64),
    Flag,
    Time,
    OneOf(&'static [&'static str]),
}

/// A query parameter.
#[derive(Debug, Clone, Copy)]
pub struct Param {
    pub name: &'static str,
    pub kind: Kind,
    pub required: bool,
    pub about: &'static str,
}

/// A request's body, by media type.
pub struct Body {
    pub about: &'static str,
    pub required: bool,
    /// The JSON form is an array.
    pub is_list: bool,
    pub contents: Vec<(&'static str, Option<Shape>)>,
}

impl Body {
    pub fn shapes(&self) -> impl Iterator<Item = Shape> {
        self.contents.iter().filter_map(|(_, shape)| *shape)
    }
}

/// An answer that is no problem.
pub struct Answer {
    pub status: u16,
    pub about: &'static str,
    pub media_types: &'static [&'static str],
    pub shape: Option<Shape>,
}

/// One call.
pub struct Route {
    pub path: String,
    pub method: Method,
    pub handler: MethodRouter<Arc<Shared>>,
    pub id: String,
    pub tag: &'static str,
    pub about: &'static str,
    pub query: Vec<Param>,
    pub headers: &'static [(&'static str, &'static str)],
    pub body: Option<Body>,
    pub answers: Vec<Answer>,
}

const JSON: &[&str] = &["application/json"];
const LINE: u64 = i64::MAX.unsigned_abs();

const fn param(name: &'static str, kind: Kind, about: &'static str) -> Param {
    Param { name, kind, required: false, about }
}

const APP: Param = param("app", Kind::Name, "`default` if not given");
const ANY_APP: Param = param("app", Kind::Name, "All apps if not given");
const INSTANCE: Param = Param { required: true, ..param("instance", Kind::Name, "The instance") };
const JOB: Param = param("job", Kind::Name, "Of this job");
const NEWEST: Param = param("attempt", Kind::Number(1, 2_147_483_647), "The newest if not given");
const FIRST: Param = param("attempt", Kind::Number(1, 2_147_483_647), "1 if not given");
const LABELS: Param = param("label.NAME", Kind::Text, "The value of label NAME; any number of such parameters");
const CURSOR: Param = param("cursor", Kind::Text, "Where the page before ended");
const FROM_LINE: Param = param("from_line", Kind::Number(0, LINE), "The first line, counted from 0");
const TO_LINE: Param = param("to_line", Kind::Number(0, LINE), "The line behind the last one");
const FORMAT: &str = "Instead of the Accept header";

/// What narrows records by what they hold.
const FILTER: [Param; 6] = [
    param("level", Kind::Text, "This level or above; a record without one counts as the one before it of its source"),
    param("since", Kind::Time, "From this moment on"),
    param("until", Kind::Time, "Before this moment"),
    param("contains", Kind::Texts, "Texts that the message must hold, all of them"),
    param("regex", Kind::Text, "An expression that the message must match"),
    param("source", Kind::Text, "Of this source alone"),
];

const READER: [Param; 8] = [
    param("limit", Kind::Number(1, query::MAX_LIMIT), "At most so many records, 1000 if not given"),
    param("last", Kind::Number(1, LINE), "The last so many records"),
    CURSOR,
    param("order", Kind::OneOf(&["line", "time"]), "How the records of this page are sorted; pages go by line"),
    param("reverse", Kind::Flag, "From the end backwards"),
    param("wait", Kind::Number(0, query::MAX_WAIT_SECONDS), "Seconds to wait for a line that is not there yet"),
    FROM_LINE,
    TO_LINE,
];

impl Route {
    fn new<H, T>(method: &Method, path: &str, id: &str, handler: H, about: &'static str) -> Self
    where
        H: Handler<T, Arc<Shared>>,
        T: 'static,
    {
        let filter = match *method {
            Method::POST => MethodFilter::POST,
            Method::PUT => MethodFilter::PUT,
            Method::DELETE => MethodFilter::DELETE,
            _ => MethodFilter::GET,
        };
        Self {
            path: path.to_owned(),
            method: method.clone(),
            handler: on(filter, handler),
            id: id.to_owned(),
            tag: "logs",
            about,
            query: Vec::new(),
            headers: &[],
            body: None,
            answers: Vec::new(),
        }
    }

    fn tag(mut self, tag: &'static str) -> Self {
        self.tag = tag;
        self
    }

    fn query(mut self, params: &[Param]) -> Self {
        self.query.extend_from_slice(params);
        self
    }

    fn headers(mut self, headers: &'static [(&'static str, &'static str)]) -> Self {
        self.headers = headers;
        self
    }

    fn body(mut self, body: Body) -> Self {
        self.body = Some(body);
        self
    }

    fn json<T: utoipa::ToSchema>(self, status: u16, about: &'static str) -> Self {
        self.answer(status, about, JSON, Some(Shape::of::<T>()))
    }

    fn answer(
        mut self,
        status: u16,
        about: &'static str,
        media_types: &'static [&'static str],
        shape: Option<Shape>,
    ) -> Self {
        self.answers.push(Answer { status, about, media_types, shape });
        self
    }

    /// The same call with the names in the query: proxies decode `%2F` in paths.
    fn with_names_in_query(self) -> [Self; 2] {
        let tail = self.path.strip_prefix(OF_INSTANCE).unwrap_or_default();
        let mut query = vec![APP, INSTANCE];
        query.extend_from_slice(&self.query);
        let by_query = Self {
            path: format!("/api/v1/instances{tail}"),
            method: self.method.clone(),
            handler: self.handler.clone(),
            id: format!("{}ByQuery", self.id),
            query,
            body: self.body.as_ref().map(|body| Body { contents: body.contents.clone(), ..*body }),
            answers: self.answers.iter().map(|answer| Answer { ..*answer }).collect(),
            ..self
        };
        [self, by_query]
    }
}

const OF_INSTANCE: &str = "/api/v1/apps/{app}/instances/{instance}";

/// All calls.
pub fn all() -> Vec<Route> {
    let of_instance = writing().into_iter().chain(reading()).chain(marking());
    of_instance.flat_map(Route::with_names_in_query).chain(of_many()).chain(of_operators()).collect()
}

const KEY: (&str, &str) = ("Idempotency-Key", "Makes sending the same records again harmless, for 24 hours by default");
const UNLESS: (&str, &str) = ("If-None-Match", "The ETag of an earlier answer about the same closed range of lines");

fn json_body<T: utoipa::ToSchema>(about: &'static str) -> Body {
    Body { about, required: false, is_list: false, contents: vec![("application/json", Some(Shape::of::<T>()))] }
}

fn writing() -> Vec<Route> {
    let path = |tail: &str| format!("{OF_INSTANCE}{tail}");
    let record = Some(Shape::of::<NewRecord>());
    vec![
        Route::new(&Method::POST, &path("/records"), "append", write::append, "Append records to one attempt")
            .query(&[JOB, FIRST, LABELS])
            .query(&[
                param("source", Kind::Text, "Of records that name none"),
                param("at_line", Kind::Number(0, LINE), "Append only if this is the next line, else 409"),
                param("charset", Kind::Text, "What the body is encoded in, where it is not UTF-8"),
            ])
            .headers(&[KEY])
            .body(Body {
                about: "A record a line, an array of records, or text, a message a line",
                required: true,
                is_list: true,
                contents: vec![("application/x-ndjson", record), ("application/json", record), ("text/plain", None)],
            })
            .json::<AppendAnswer>(200, "Stored, after the commit"),
        Route::new(&Method::PUT, OF_INSTANCE, "declare", declare::declare, "Say what is known before the first line")
            .query(&[FIRST])
            .body(json_body::<DeclareBody>("What is known"))
            .json::<DeclareAnswer>(200, "The attempt as it stands"),
        Route::new(&Method::POST, &path("/finish"), "finish", declare::finish, "Say that an attempt is over")
            .query(&[FIRST])
            .body(json_body::<FinishBody>("How it ended"))
            .json::<DeclareAnswer>(200, "The attempt as it stands"),
    ]
}

fn reading() -> Vec<Route> {
    let path = |tail: &str| format!("{OF_INSTANCE}{tail}");
    vec![
        Route::new(&Method::GET, &path("/records"), "records", read::records, "A page of records")
            .query(&[NEWEST])
            .query(&READER)
            .query(&FILTER)
            .query(&[param("format", Kind::OneOf(&["json", "ndjson", "text", "raw"]), FORMAT)])
            .headers(&[UNLESS])
            .answer(
                200,
                "Records, and where to go on",
                &["application/json", "application/x-ndjson", "text/plain"],
                Some(Shape::of::<RecordPage>()),
            )
            .answer(304, "Unchanged", &[], None),
        Route::new(&Method::GET, &path("/follow"), "follow", follow::follow, "New lines as server-sent events")
            .query(&[NEWEST, FROM_LINE])
            .query(&[
                param("last", Kind::Number(0, query::MAX_LIMIT), "Begin with the last so many lines"),
                param("last_event_id", Kind::Text, "For clients that cannot send the header Last-Event-ID"),
            ])
            .query(&FILTER)
            .headers(&[("Last-Event-ID", "ATTEMPT:LINE of the last event that came")])
            .answer(200, "`record` events, `end` after the last, `error` with a reason", &["text/event-stream"], None)
            .answer(204, "All of a finished attempt has come before", &[], None),
        Route::new(&Method::GET, &path("/download"), "download", download::download, "The whole log as a file")
            .query(&[NEWEST, FROM_LINE, TO_LINE])
            .query(&FILTER)
            .query(&[param("format", Kind::OneOf(&["text", "raw", "ndjson"]), "text if not given")])
            .headers(&[UNLESS])
            .answer(
                200,
                "The log, streamed; a stream that breaks off is not whole",
                &["text/plain", "application/x-ndjson"],
                Some(Shape::of::<DownloadLine>()),
            )
            .answer(304, "Unchanged", &[], None),
    ]
}

fn marking() -> Vec<Route> {
    let hold = format!("{OF_INSTANCE}/hold");
    vec![
        Route::new(&Method::DELETE, OF_INSTANCE, "delete", marks::delete, "Delete an instance, or one attempt of it")
            .query(&[param("attempt", Kind::Number(1, 2_147_483_647), "All if not given")])
            .query(&[param("dry_run", Kind::Flag, "Delete nothing; say what would go")])
            .answer(204, "Gone from every read", &[], None)
            .json::<Report>(200, "What would go"),
        Route::new(
            &Method::GET,
            &format!("{OF_INSTANCE}/retention"),
            "retention",
            marks::explain,
            "Which retention rule applies, and when what happens",
        )
        .query(&[NEWEST])
        .json::<Report>(200, "The rule, and what will happen"),
        Route::new(&Method::PUT, &hold, "hold", marks::hold, "Keep an instance whatever its retention")
            .query(&[param("attempt", Kind::Number(1, 2_147_483_647), "All if not given")])
            .json::<Hold>(200, "Held"),
        Route::new(&Method::DELETE, &hold, "release", marks::release, "Let a held instance go again")
            .query(&[param("attempt", Kind::Number(1, 2_147_483_647), "All if not given")])
            .json::<Hold>(200, "Released"),
    ]
}

fn of_many() -> Vec<Route> {
    let page = [param("limit", Kind::Number(1, lists::MAX_LIMIT), "At most so many, 100 if not given"), CURSOR];
    let outcome = param("outcome", Kind::OneOf(&["succeeded", "failed", "cancelled"]), "That ended so");
    let among = [
        JOB,
        LABELS,
        param("state", Kind::OneOf(&["open", "finished", "archived", "expired", "deleted"]), "In this state"),
        outcome,
        param("since", Kind::Time, "Made at this moment or later"),
        param("until", Kind::Time, "Made before this moment"),
    ];
    let record = Some(Shape::of::<NewRecord>());
    let one = "Attempts, newest first; with `instance`, what is known of that one";
    vec![
        Route::new(&Method::POST, "/api/v1/records", "bulk", write::bulk, "Append records to many attempts")
            .query(&[
                param("app", Kind::Name, "Of records that name none"),
                param("job", Kind::Name, "Of records that name none"),
                param("source", Kind::Text, "Of records that name none"),
                param("charset", Kind::Text, "What the body is encoded in, where it is not UTF-8"),
            ])
            .headers(&[KEY])
            .body(Body {
                about: "A record a line, each of which names its instance",
                required: true,
                is_list: true,
                contents: vec![("application/x-ndjson", record)],
            })
            .json::<BulkAnswer>(200, "Stored, after the commit, but for what `rejected` lists"),
        Route::new(&Method::GET, "/api/v1/apps", "apps", lists::apps, "Names of all apps")
            .query(&page)
            .json::<AppList>(200, "A page of names in order"),
        Route::new(&Method::GET, "/api/v1/apps/{app}/jobs", "jobs", lists::jobs, "Names of an app's jobs")
            .query(&page)
            .json::<JobList>(200, "A page of names in order"),
        Route::new(
            &Method::GET,
            "/api/v1/apps/{app}/instances",
            "instancesOfApp",
            lists::instances,
            "Attempts of an app",
        )
        .query(&among)
        .query(&page)
        .json::<InstanceList>(200, "A page of attempts, newest first"),
        Route::new(&Method::GET, "/api/v1/instances", "instances", lists::instances_or_one, one)
            .query(&[ANY_APP, param("instance", Kind::Name, "This one alone"), NEWEST])
            .query(&among)
            .query(&page)
            .json::<lists::ListOrOne>(200, "A page of attempts, or one"),
        Route::new(&Method::GET, OF_INSTANCE, "instance", read::summary, "What is known of an instance")
            .query(&[NEWEST])
            .json::<Summary>(200, "What is known"),
        Route::new(&Method::GET, "/api/v1/search", "search", search::search, "Records of many instances, newest first")
            .query(&[ANY_APP, JOB, param("instance", Kind::Name, "Of this instance alone"), LABELS, outcome])
            .query(&FILTER)
            .query(&[param("limit", Kind::Number(1, search::MAX_LIMIT), "At most so many records, 1000 if not given")])
            .answer(
                200,
                "A find a line as they are made, and last what was searched",
                &["application/x-ndjson"],
                Some(Shape::of::<SearchLine>()),
            ),
    ]
}

fn of_operators() -> Vec<Route> {
    const METRICS: &[&str] = &["application/openmetrics-text"];
    let wait = param("wait", Kind::Number(0, admin::MAX_WAIT_SECONDS), "Seconds to wait for the run's end");
    let limit = param("limit", Kind::Number(1, admin::MAX_RUNS), "At most so many, 20 if not given");
    let pause = "/api/v1/purge/pause";
    let routes =
        vec![
            Route::new(&Method::GET, "/api/v1/status", "status", admin::status, "How the daemon and its tiers are")
                .json::<Report>(200, "The status"),
            Route::new(&Method::POST, "/api/v1/archive", "archive", admin::archive, "Move everything that is due now")
                .query(&[
                    param("dry_run", Kind::Flag, "Move nothing; say what would move, and why"),
                    param("retry", Kind::Flag, "Also try again what was set aside after failures"),
                    wait,
                ])
                .json::<Report>(200, "The run's report")
                .json::<RunStarted>(202, "A run that has begun"),
            Route::new(&Method::PUT, pause, "pausePurge", admin::pause_purge, "Delete no rows, on any daemon")
                .query(&[param("reason", Kind::Text, "For those who wonder; the status shows it")])
                .answer(204, "Paused", &[], None),
            Route::new(&Method::DELETE, pause, "resumePurge", admin::resume_purge, "Let the next run delete again")
                .answer(204, "It will", &[], None),
            Route::new(&Method::GET, "/api/v1/runs", "runs", admin::runs, "Reports of the last runs")
                .query(&[limit])
                .json::<Report>(200, "Reports, the newest first"),
            Route::new(&Method::GET, "/api/v1/runs/{id}", "run", admin::run, "The report of one run")
                .json::<Report>(200, "The report"),
            Route::new(&Method::GET, "/healthz", "healthz", admin::healthz, "The process answers; needs no token")
                .answer(200, "It does", &["text/plain"], None),
            Route::new(&Method::GET, "/readyz", "readyz", admin::readyz, "Requests will be answered; needs no token")
                .answer(200, "They will", &["text/plain"], None),
            Route::new(&Method::GET, "/metrics", "metrics", admin::metrics, "Metrics in OpenMetrics' text format")
                .answer(200, "The metrics", METRICS, None),
            Route::new(&Method::GET, "/openapi.json", "openapi", openapi, "This document").json::<Report>(200, "It"),
        ];
    routes.into_iter().map(|route| route.tag("operation")).collect()
}
