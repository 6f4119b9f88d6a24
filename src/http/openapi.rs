//! `GET /openapi.json`: the API in OpenAPI 3.1, made from the table that makes the routes.
//!
//! Shapes of bodies come from the types that are sent (`utoipa::ToSchema`); a test holds the
//! parameters against what the handlers take.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::routes::{self, Answer, Body, Kind, Param, Route};
use super::schemas::ProblemDocument;

/// `GET /openapi.json`
pub async fn openapi() -> Response {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| document().to_string().into());
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.clone()).into_response()
}

/// A type's schema by its name, and all that it refers to.
#[derive(Clone, Copy)]
pub struct Shape {
    name: fn() -> String,
    collect: fn(&mut Map<String, Value>),
}

impl Shape {
    pub fn of<T: ToSchema>() -> Self {
        Self { name: || T::name().into_owned(), collect: collect::<T> }
    }

    fn reference(self) -> Value {
        json!({ "$ref": format!("#/components/schemas/{}", (self.name)()) })
    }
}

fn collect<T: ToSchema>(into: &mut Map<String, Value>) {
    let mut all = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut all);
    // A schema always has a JSON form.
    into.extend(all.into_iter().map(|(name, schema)| (name, serde_json::to_value(schema).unwrap_or_default())));
}

pub fn document() -> Value {
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    collect::<ProblemDocument>(&mut schemas);
    for route in routes::all() {
        let methods = paths.entry(route.path.clone()).or_insert_with(|| json!({}));
        methods[route.method.as_str().to_lowercase()] = operation(&route);
        let bodies = route.body.iter().flat_map(Body::shapes);
        for shape in bodies.chain(route.answers.iter().filter_map(|answer| answer.shape)) {
            (shape.collect)(&mut schemas);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "logtier",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Logs of job instances: recent ones in SQL tables, aged ones in object storage, \
                one reader over both. Ids in paths are percent-encoded; because proxies decode %2F, each call \
                on an instance also exists with `app` and `instance` in the query.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "security": [{}, { "token": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn operation(route: &Route) -> Value {
    let in_path = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let in_path = in_path.map(|name| {
        json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "minLength": 1, "maxLength": 255 } })
    });
    let in_header = route.headers.iter().map(
        |(name, about)| json!({ "name": name, "in": "header", "description": about, "schema": { "type": "string" } }),
    );
    let parameters: Vec<Value> = in_path.chain(route.query.iter().map(parameter)).chain(in_header).collect();
    let mut operation = json!({
        "operationId": route.id,
        "tags": [route.tag],
        "summary": route.about,
        "parameters": parameters,
        "responses": responses(&route.answers),
    });
    if let Some(body) = &route.body {
        operation["requestBody"] = request_body(body);
    }
    operation
}

fn parameter(param: &Param) -> Value {
    let mut parameter = json!({
        "name": param.name, "in": "query", "description": param.about, "schema": schema(param.kind),
    });
    if param.required {
        parameter["required"] = true.into();
    }
    parameter
}

fn schema(kind: Kind) -> Value {
    match kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::Name => json!({ "type": "string", "minLength": 1, "maxLength": 255 }),
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" }, "maxItems": 16 }),
        Kind::Number(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Flag => json!({ "type": "boolean", "default": false }),
        Kind::OneOf(words) => json!({ "type": "string", "enum": words }),
        Kind::Time => json!({
            "type": "string",
            "description": "RFC 3339 with any offset, or unix milliseconds",
            "examples": ["2026-11-22T10:00:00Z", "1795341600000"],
        }),
    }
}

fn request_body(body: &Body) -> Value {
    let contents = body.contents.iter().map(|(media_type, shape)| {
        let content = match shape {
            Some(shape) if *media_type == "application/json" && body.is_list => {
                json!({ "schema": { "type": "array", "items": shape.reference() } })
            }
            Some(shape) if *media_type == "application/json" => json!({ "schema": shape.reference() }),
            // What a line of it looks like: 3.1 has no word for a stream of documents.
            Some(shape) => json!({ "schema": { "type": "string" }, "x-line-schema": shape.reference() }),
            None => json!({ "schema": { "type": "string" } }),
        };
        ((*media_type).to_owned(), content)
    });
    json!({ "description": body.about, "required": body.required, "content": contents.collect::<Map<_, _>>() })
}

fn responses(answers: &[Answer]) -> Value {
    let problem = Shape::of::<ProblemDocument>().reference();
    let mut responses = Map::new();
    for answer in answers {
        let contents = answer.media_types.iter().map(|media_type| {
            let content = match answer.shape {
                Some(shape) if *media_type == "application/json" => json!({ "schema": shape.reference() }),
                Some(shape) => json!({ "schema": { "type": "string" }, "x-line-schema": shape.reference() }),
                None => json!({ "schema": { "type": "string" } }),
            };
            ((*media_type).to_owned(), content)
        });
        let mut response = json!({ "description": answer.about });
        if !answer.media_types.is_empty() {
            response["content"] = contents.collect::<Map<_, _>>().into();
        }
        responses.insert(answer.status.to_string(), response);
    }
    let any = json!({
        "description": "A problem: what happened and what to do. 4xx: the request; 503: try again after Retry-After.",
        "content": { "application/problem+json": { "schema": problem } },
    });
    responses.insert("default".to_owned(), any);
    responses.into()
}
