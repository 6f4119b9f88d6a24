//! The document against the routes, their parameters, and what they answer.

use std::collections::BTreeSet;

use serde_json::json;

use super::super::openapi::document;
use super::*;

/// A path with names in it, and the query that the call needs to get as far as its parameters.
fn callable(path: &str, operation: &Value) -> String {
    let path = path.replace("{app}", "a").replace("{instance}", "i").replace("{id}", "1");
    let required = operation["parameters"].as_array().into_iter().flatten();
    let required = required.filter(|param| param["in"] == "query" && param["required"] == true);
    let query: Vec<String> = required.map(|param| format!("{}=i", param["name"].as_str().expect("a name"))).collect();
    format!("{path}?{}", query.join("&"))
}

fn documented<'d>(operation: &'d Value, place: &str) -> BTreeSet<&'d str> {
    let all = operation["parameters"].as_array().into_iter().flatten();
    all.filter(|param| param["in"] == place).filter_map(|param| param["name"].as_str()).collect()
}

#[tokio::test]
async fn every_call_takes_just_the_parameters_that_are_documented() {
    let daemon = Daemon::start().await;
    let document = daemon.get("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let (mut calls, mut ids) = (0, BTreeSet::new());
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            calls += 1;
            assert!(ids.insert(operation["operationId"].as_str()), "{method} {path}: the id is not its own");
            let documented = documented(operation, "query");
            let target = format!("{}&no_such_parameter=1", callable(path, operation));
            let ask = async |target: &str| daemon.send(request(&method.to_uppercase(), target, &[], "{}")).await.json();
            let taken = async |target: &str| {
                let problem = ask(target).await;
                let known =
                    problem["known"].as_array().unwrap_or_else(|| panic!("{method} {target}: {problem}")).clone();
                known.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect::<BTreeSet<_>>()
            };
            if ["/healthz", "/readyz", "/metrics", "/openapi.json"].contains(&path.as_str()) {
                assert!(documented.is_empty());
                continue;
            }
            let mut known = taken(&target).await;
            if path == "/api/v1/instances" && method == "get" {
                known.append(&mut taken(&format!("{target}&instance=i")).await);
            }
            assert_eq!(known.iter().map(String::as_str).collect::<BTreeSet<_>>(), documented, "{method} {path}");
        }
    }
    assert_eq!(calls, routes::all().len());
}

#[tokio::test]
async fn references_lead_somewhere_and_bodies_are_described() {
    let document = document();
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(document.pointer(reference).is_some(), "{reference}");
    }
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let has_body = operation.get("requestBody").is_some();
            let has_none = ["/hold", "/archive", "/purge/pause"].iter().any(|end| path.ends_with(end));
            let may_have = matches!(method.as_str(), "post" | "put") && !has_none;
            assert_eq!(has_body, may_have, "{method} {path}");
            assert!(operation["responses"].as_object().is_some_and(|answers| answers.len() > 1), "{method} {path}");
        }
    }
}

/// The members that a schema of this name has.
fn members(document: &Value, name: &str) -> BTreeSet<String> {
    let schema = &document["components"]["schemas"][name];
    let parts = schema["allOf"].as_array().cloned().unwrap_or_else(|| vec![schema.clone()]);
    let parts = parts.into_iter().map(|part| match part["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).expect("a schema").clone(),
        None => part,
    });
    parts
        .flat_map(|part| part["properties"].as_object().expect("properties").keys().cloned().collect::<Vec<_>>())
        .collect()
}

#[tokio::test]
async fn answers_have_the_members_that_are_documented() {
    let daemon = Daemon::start().await;
    let document = document();
    let path = "/api/v1/apps/default/instances/i1";
    let record = r#"{"message":"a\uFFFD","raw":"Yf8=","level":"info","source":"w","attrs":{"k":1},"partial":true}"#;
    let appended = daemon.post(&format!("{path}/records?job=j&label.a=b"), record).await.json();
    let bulk = daemon.post("/api/v1/records", "{\"instance\":\"i1\",\"message\":\"b\"}\nx").await.json();
    let page = daemon.get(&format!("{path}/records")).await.json();
    let download = daemon.get(&format!("{path}/download?format=ndjson&attempt=1&to_line=1")).await.json();
    let found = daemon.get("/api/v1/search?contains=b").await.text();
    let found: Value = serde_json::from_str(found.lines().next().expect("a find")).expect("JSON");
    for (name, answer) in [
        ("AppendAnswer", &appended),
        ("BulkAnswer", &bulk),
        ("BatchAnswer", &bulk["batches"][0]),
        ("RejectedAnswer", &bulk["rejected"][0]),
        ("RecordPage", &page),
        ("Record", &page["records"][0]),
        ("DownloadLine", &download),
        ("SearchLine", &found),
        ("Summary", &daemon.get(path).await.json()),
        ("ShownAttempt", &daemon.get("/api/v1/instances").await.json()["instances"][0]),
        ("DeclareAnswer", &daemon.post(&format!("{path}/finish"), "").await.json()),
        ("Hold", &daemon.send(request("PUT", &format!("{path}/hold"), &[], "")).await.json()),
        ("ProblemDocument", &daemon.get("/nothing").await.json()),
    ] {
        let known = members(&document, name);
        let shown: BTreeSet<String> =
            answer.as_object().unwrap_or_else(|| panic!("{name}: {answer}")).keys().cloned().collect();
        assert!(shown.is_subset(&known), "{name}: {shown:?} are shown, {known:?} documented");
        let schema = &document["components"]["schemas"][name];
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let missing: Vec<&Value> =
            required.iter().filter(|name| !shown.contains(name.as_str().unwrap_or(""))).collect();
        assert_eq!(missing, Vec::<&Value>::new(), "{name}: required, not shown");
    }
    assert_eq!(page["records"][0].as_object().map(serde_json::Map::len), Some(members(&document, "Record").len()));
    assert_eq!(json!(document["info"]["version"]), env!("CARGO_PKG_VERSION"));
}
