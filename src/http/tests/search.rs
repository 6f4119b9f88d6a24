//! Looking for records across instances.

use serde_json::json;

use super::*;

/// The finds as `instance:line`, and the summary.
async fn search(daemon: &Daemon, query: &str) -> (Vec<String>, Value) {
    let answer = daemon.get(&format!("/api/v1/search?{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let items: Vec<Value> = answer
        .text()
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect();
    let (last, finds) = items.split_last().expect("a summary");
    let name =
        |item: &Value| format!("{}:{}", item["record"]["instance"].as_str().expect("a name"), item["record"]["line"]);
    (finds.iter().map(name).collect(), last["summary"].clone())
}

#[tokio::test]
async fn finds_are_newest_first_and_the_summary_is_last() {
    let daemon = Daemon::start().await;
    for (instance, level) in [("old", "error"), ("middle", "info"), ("new", "warn")] {
        let lines: String =
            (0..3).map(|n| format!("{{\"level\":\"{level}\",\"message\":\"needle {instance} {n}\"}}\n")).collect();
        daemon.post(&format!("/api/v1/apps/default/instances/{instance}/records?job=j"), lines).await;
        daemon.api.clock.sleep(Duration::from_millis(3)).await;
    }
    let (finds, summary) = search(&daemon, "contains=needle&regex=[02]$").await;
    assert_eq!(finds, ["new:0", "new:2", "middle:0", "middle:2", "old:0", "old:2"]);
    assert_eq!((&summary["complete"], &summary["found"]), (&json!(true), &json!(6)));
    let (finds, summary) = search(&daemon, "level=error&app=default&job=j").await;
    assert_eq!(finds, ["old:0", "old:1", "old:2"]);
    assert_eq!(summary["skipped"]["instances"], 2, "the catalog knows their levels");
    let (finds, summary) = search(&daemon, "contains=needle&limit=4").await;
    assert_eq!((finds.len(), &summary["complete"]), (4, &json!(false)));
    let (finds, summary) = search(&daemon, "contains=nowhere&instance=new").await;
    assert_eq!((finds.len(), &summary["scanned"]["instances"]), (0, &json!(1)));
    assert_eq!(daemon.get("/api/v1/search?contain=x").await.problem().0, 400);
}
