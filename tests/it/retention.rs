//! Rules, their changes, and what they may never do.

use std::time::Duration;

use logtier::archive::Marked;
use logtier::clock::Clock;
use logtier::model::Millis;
use logtier::read::ReadError;
use rand::Rng;
use serde_json::{Value, json};

use crate::harness::daemon::{Daemon, runtime};
use crate::harness::logs::{append, finish, home, key, messages, number, numbered, row, sql, tiers};
use crate::harness::scenes::due;
use crate::harness::{Engine, Tiers, on_each_pair};

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOT_FOR: &str = "LOGTIER_RETENTION__DEFAULT__HOT_FOR";
const PURGE_GRACE: &str = "LOGTIER_ARCHIVE__PURGE_GRACE";
const SHRINK_GRACE: &str = "LOGTIER_RETENTION__SHRINK_GRACE";
const COLD_FOR: &str = "LOGTIER_RETENTION__DEFAULT__COLD_FOR";

fn on_each(test: impl AsyncFn(&Tiers, Clock)) {
    on_each_pair(|tiers| runtime().block_on(test(tiers, Clock::default())));
}

/// Archives; the report, in which nothing failed.
async fn archive(daemon: &Daemon) -> Value {
    let report = daemon.archive().await;
    assert_eq!(report["failures"], json!([]), "{report}");
    report
}

/// What a run would do.
async fn rehearse(daemon: &Daemon) -> Value {
    daemon.post("/archive?dry_run=true", "").await.expect(200).json()
}

async fn is_gone(daemon: &Daemon, instance: &str) -> bool {
    matches!(messages(&daemon.app, instance).await, Err(ReadError::Gone { .. }))
}

async fn explain(daemon: &Daemon, instance: &str) -> Value {
    daemon.get(&format!("/apps/a/instances/{instance}/retention")).await.expect(200).json()
}

/// A configuration file with these rules.
fn rules_file(tiers: &Tiers, name: &str, rules: &str) -> String {
    let path = tiers.folder().join(name);
    std::fs::write(&path, rules).expect("written");
    path.display().to_string()
}

#[test]
fn shorter_ages_reach_archived_attempts_but_not_before_the_grace() {
    on_each(async |tiers, clock| {
        let daemon = Daemon::start_at(tiers, &[], clock.clone()).await;
        let all = due(&daemon, "i", 50).await;
        archive(&daemon).await;
        clock.advance(20 * DAY);
        let finished_at = row(&daemon.app, "i").await.finished_at.expect("finished");
        daemon.stop().await;

        let daemon = Daemon::start_at(tiers, &[(COLD_FOR, "10d")], clock.clone()).await;
        for _ in 0..2 {
            assert_eq!(archive(&daemon).await["expired"], 0);
            assert!(messages(&daemon.app, "i").await.expect("readable") == all);
            clock.advance(DAY / 3);
        }
        assert_eq!(row(&daemon.app, "i").await.expires_at, Some(finished_at.after(180 * DAY)));
        let status = daemon.get("/status").await.json();
        assert!(status["retention"]["longer_ages_until"].is_string(), "{status}");
        assert_eq!(status["retention"]["agreed"], true, "{status}");
        let explained = explain(&daemon, "i").await;
        let (until, steps) = (&explained["longer_ages_until"], explained["steps"].as_array().expect("steps"));
        assert!(until.is_string() && steps.iter().any(|step| step["at"] == *until), "{explained}");
        clock.advance(DAY);
        let foreseen = rehearse(&daemon).await;
        assert_eq!((&foreseen["expired"], &foreseen["ends"][0]["instance"]), (&json!(1), &json!("i")), "{foreseen}");
        let report = archive(&daemon).await;
        assert_eq!((&report["reaged"], &report["expired"]), (&json!(1), &json!(1)), "{report}");
        assert!(is_gone(&daemon, "i").await);
        daemon.stop().await;
    });
}

/// What a run would purge may be what it expires.
#[test]
fn a_rehearsal_knows_the_new_end_of_what_is_due_for_another_reason() {
    on_each(async |tiers, clock| {
        let daemon = Daemon::start_at(tiers, &[(PURGE_GRACE, "40d")], clock.clone()).await;
        due(&daemon, "i", 50).await;
        archive(&daemon).await;
        daemon.stop().await;
        let daemon = Daemon::start_at(tiers, &[(COLD_FOR, "10d"), (PURGE_GRACE, "40d")], clock.clone()).await;
        archive(&daemon).await;
        daemon.stop().await;
        clock.advance(41 * DAY);
        let daemon = Daemon::start_at(tiers, &[(COLD_FOR, "11d"), (SHRINK_GRACE, "0s")], clock.clone()).await;
        let foreseen = rehearse(&daemon).await;
        let report = archive(&daemon).await;
        assert_eq!((&foreseen["expired"], &report["expired"]), (&json!(1), &json!(1)), "{foreseen} {report}");
        daemon.stop().await;
    });
}

/// What has to move under rules that no run has applied yet is told before it moves.
#[test]
fn a_rehearsal_knows_what_a_shorter_hot_for_moves() {
    on_each(async |tiers, clock| {
        let daemon = Daemon::start_at(tiers, &[(HOT_FOR, "30d")], clock.clone()).await;
        due(&daemon, "i", 50).await;
        assert_eq!((&archive(&daemon).await["attempts"], &rehearse(&daemon).await["attempts"]), (&json!(0), &json!(0)));
        daemon.stop().await;
        clock.advance(DAY);
        let daemon = Daemon::start_at(tiers, &[(HOT_FOR, "1h")], clock.clone()).await;
        let foreseen = rehearse(&daemon).await;
        assert_eq!((&foreseen["attempts"], &foreseen["lines"]), (&json!(1), &json!(50)), "{foreseen}");
        assert_eq!(archive(&daemon).await["attempts"], 1);
        assert_eq!(rehearse(&daemon).await["attempts"], 0);
        daemon.stop().await;
    });
}

#[test]
fn longer_ages_reach_archived_attempts_at_once() {
    on_each(async |tiers, clock| {
        let daemon = Daemon::start_at(tiers, &[(COLD_FOR, "10d")], clock.clone()).await;
        let all = due(&daemon, "i", 50).await;
        archive(&daemon).await;
        daemon.stop().await;
        let daemon = Daemon::start_at(tiers, &[(COLD_FOR, "30d")], clock.clone()).await;
        archive(&daemon).await;
        clock.advance(20 * DAY);
        assert_eq!(archive(&daemon).await["expired"], 0);
        assert!(messages(&daemon.app, "i").await.expect("readable") == all);
        clock.advance(11 * DAY);
        assert_eq!(archive(&daemon).await["expired"], 1);
        daemon.stop().await;
        // Forever is longer than anything.
        let daemon = Daemon::start_at(tiers, &[(COLD_FOR, "30d")], clock.clone()).await;
        due(&daemon, "j", 5).await;
        archive(&daemon).await;
        daemon.stop().await;
        let daemon = Daemon::start_at(tiers, &[(COLD_FOR, "forever")], clock.clone()).await;
        archive(&daemon).await;
        assert_eq!(row(&daemon.app, "j").await.expires_at, None);
        clock.advance(9_999 * DAY);
        assert_eq!(archive(&daemon).await["expired"], 0);
        daemon.stop().await;
    });
}

#[test]
fn nothing_expires_while_two_daemons_hold_to_different_rules() {
    on_each(async |tiers, clock| {
        let one = Daemon::start_at(tiers, &[], clock.clone()).await;
        let all = due(&one, "i", 50).await;
        archive(&one).await;
        // In the hot tier only, where no row says when it ends.
        due(&one, "hot", 5).await;
        clock.advance(150 * DAY);
        let other = Daemon::start_at(tiers, &[(COLD_FOR, "100d")], clock.clone()).await;
        heard_of(&one, &clock, 1).await;
        for daemon in [&one, &other] {
            let report = daemon.archive().await;
            assert_eq!(report["expired"], 0, "{report}");
            assert!(messages(&daemon.app, "i").await.expect("readable") == all);
        }
        clock.advance(50 * DAY);
        let third = Daemon::start_at(tiers, &[(COLD_FOR, "100d")], clock.clone()).await;
        heard_of(&one, &clock, 1).await;
        let report = one.archive().await;
        assert!(report["failures"].to_string().contains("holds to other retention rules"), "{report}");
        assert_eq!(report["expired"], 0, "{report}");
        let explained = explain(&one, "hot").await;
        assert!(explained["expiry_is_stopped"].is_string(), "{explained}");
        third.stop().await;
        other.stop().await;
        assert!(one.archive().await["expired"].as_u64() >= Some(1));
        assert!(is_gone(&one, "i").await);
        one.stop().await;
    });
}

/// Waits until so many daemons have been heard of lately.
async fn heard_of(daemon: &Daemon, clock: &Clock, wanted: usize) {
    let catalog = &daemon.app.catalog;
    let since = Millis::new(clock.now().get() - 60_000);
    while catalog.daemons(&catalog.cluster.servers()[0], since).await.expect("asked").len() < wanted {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn what_a_removed_rule_archived_keeps_its_ages() {
    on_each(async |tiers, clock| {
        let rules = "[[retention.rule]]\nname = \"long\"\napp = \"a\"\ncold_for = \"900d\"\n";
        let file = rules_file(tiers, "long.toml", rules);
        let daemon = Daemon::start_at(tiers, &[("LOGTIER_CONFIG", &file)], clock.clone()).await;
        let all = due(&daemon, "i", 50).await;
        archive(&daemon).await;
        assert_eq!(explain(&daemon, "i").await["rule"], "long");
        daemon.stop().await;
        let daemon = Daemon::start_at(tiers, &[], clock.clone()).await;
        archive(&daemon).await;
        clock.advance(300 * DAY);
        assert_eq!(archive(&daemon).await["expired"], 0);
        assert!(messages(&daemon.app, "i").await.expect("readable") == all);
        let explained = explain(&daemon, "i").await;
        assert_eq!((&explained["rule"], &explained["ages_of_removed_rule"]), (&json!("default"), &json!("long")));
        assert_eq!(explained["cold_for"], "900d");
        clock.advance(601 * DAY);
        assert_eq!(archive(&daemon).await["expired"], 1);
        daemon.stop().await;
    });
}

#[test]
fn a_rule_may_hold_all_that_it_matches() {
    on_each(async |tiers, clock| {
        let file = rules_file(tiers, "hold.toml", "[[retention.rule]]\nname = \"legal\"\napp = \"a\"\nhold = true\n");
        let daemon = Daemon::start_at(tiers, &[], clock.clone()).await;
        let all = due(&daemon, "i", 50).await;
        archive(&daemon).await;
        daemon.stop().await;
        let held = Daemon::start_at(tiers, &[("LOGTIER_CONFIG", &file)], clock.clone()).await;
        archive(&held).await;
        clock.advance(900 * DAY);
        assert_eq!(archive(&held).await["expired"], 0);
        assert!(messages(&held.app, "i").await.expect("readable") == all);
        let name = key("i");
        let deleted = held.app.archiver.delete(&name.app, &name.instance, None).await.expect("asked");
        assert_eq!(deleted, Marked::Held);
        let explained = explain(&held, "i").await;
        assert_eq!((&explained["held_by_rule"], &explained["held_by_request"]), (&json!(true), &json!(false)));
        held.stop().await;
        // Without the rule the hold ends, after the grace.
        let daemon = Daemon::start_at(tiers, &[], clock.clone()).await;
        assert_eq!(archive(&daemon).await["expired"], 0);
        clock.advance(2 * DAY);
        assert_eq!(archive(&daemon).await["expired"], 1);
        daemon.stop().await;
    });
}

#[test]
fn a_database_that_knows_no_rules_expires_nothing_before_the_grace() {
    on_each(async |tiers, clock| {
        let daemon = Daemon::start_at(tiers, &[], clock.clone()).await;
        due(&daemon, "i", 50).await;
        archive(&daemon).await;
        // As after a rebuild from the bucket.
        sql(&home(&daemon.app, "i"), "DELETE FROM rule_set").await;
        daemon.stop().await;
        let daemon = Daemon::start_at(tiers, &[(COLD_FOR, "1s")], clock.clone()).await;
        clock.advance(Duration::from_secs(3600));
        assert_eq!(archive(&daemon).await["expired"], 0);
        assert!(!is_gone(&daemon, "i").await);
        clock.advance(DAY);
        assert_eq!(archive(&daemon).await["expired"], 1);
        daemon.stop().await;
    });
}

#[test]
fn a_hot_tier_under_pressure_archives_early() {
    on_each(async |tiers, clock| {
        let settings = [("LOGTIER_RETENTION__DEFAULT__HOT_FOR", "30d"), ("LOGTIER_ARCHIVE__PRESSURE_SIZE", "1MiB")];
        let daemon = Daemon::start_at(tiers, &settings, clock.clone()).await;
        let noise =
            |_| -> String { rand::rng().sample_iter(rand::distr::Alphanumeric).take(900).map(char::from).collect() };
        let all: Vec<String> = (0..3_000).map(noise).collect();
        append(&daemon.app, "large", &all).await;
        finish(&daemon.app, &clock, "large").await;
        let open = numbered("open", 0..10);
        append(&daemon.app, "open", &open).await;
        analyze(&daemon, tiers).await;
        let would = daemon.app.archiver.dry_run().await.expect("a rehearsal");
        assert_eq!((would.attempts, would.pressure.is_some()), (1, true), "{would:?}");
        let report = archive(&daemon).await;
        // An open attempt would move only if its window was worth an object.
        assert_eq!((&report["lines"], &report["purged"]), (&json!(3_000), &json!(1)), "{report}");
        assert_eq!(report["moves"][0]["why"], "the hot tier is under pressure", "{report}");
        assert!(messages(&daemon.app, "large").await.expect("readable") == all);
        assert_eq!((tiers_of(&daemon, "large").await, tiers_of(&daemon, "open").await), ("cold", "hot"));
        due(&daemon, "small", 10).await;
        // InnoDB frees the pages of deleted rows when it comes to it.
        let db = &daemon.app.catalog.cluster.servers()[0];
        for _ in 0..200 {
            analyze(&daemon, tiers).await;
            if daemon.app.catalog.hot_bytes(db).await.expect("a size") <= 1 << 20 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!((&archive(&daemon).await["lines"], tiers_of(&daemon, "small").await), (&json!(0), "hot"));
        daemon.stop().await;
    });
}

/// MariaDB's sizes of tables are estimates that it brings up to date when it likes.
async fn analyze(daemon: &Daemon, tiers: &Tiers) {
    if tiers.engine == Engine::MySql {
        for &shard in daemon.app.catalog.cluster.servers()[0].shards() {
            sql(&home(&daemon.app, "i"), &format!("ANALYZE TABLE chunk_{shard}")).await;
        }
    }
}

#[test]
fn rehearsals_say_what_would_go_and_change_nothing() {
    on_each(async |tiers, clock| {
        let daemon = Daemon::start_at(tiers, &[], clock.clone()).await;
        let all = due(&daemon, "i", 50).await;
        archive(&daemon).await;
        let path = daemon.url("/api/v1/apps/a/instances/i?dry_run=true");
        let would = daemon.send(daemon.client.delete(path)).await.expect(200).json();
        assert_eq!(would["attempts"], json!([{"attempt": 1, "lines": 50, "hot_lines": 0, "objects": 1}]), "{would}");
        assert!(messages(&daemon.app, "i").await.expect("readable") == all);
        let steps = explain(&daemon, "i").await["steps"].clone();
        assert_eq!(steps[0]["what"], "expires", "{steps}");
        clock.advance(181 * DAY);
        let would = daemon.app.archiver.dry_run().await.expect("a rehearsal");
        assert_eq!((would.expired, would.ends[0].lines), (1, 50), "{would:?}");
        let home = home(&daemon.app, "i");
        assert_eq!(number(&home, &format!("SELECT COUNT(*) FROM part_{}", home.shard)).await, 1);
        assert_eq!(archive(&daemon).await["expired"], 1);
        let would = daemon.app.archiver.dry_run().await.expect("a rehearsal");
        assert_eq!((would.objects_deleted, would.deletions.len()), (0, 0), "it went with the run: {would:?}");
        let unknown = daemon.url("/api/v1/apps/a/instances/nobody?dry_run=true");
        daemon.send(daemon.client.delete(unknown)).await.expect(404);
        daemon.stop().await;
    });
}

#[test]
fn steps_follow_an_attempts_life() {
    on_each(async |tiers, clock| {
        let settings = [("LOGTIER_RETENTION__DEFAULT__HOT_FOR", "3d"), ("LOGTIER_ARCHIVE__PURGE_GRACE", "10m")];
        let daemon = Daemon::start_at(tiers, &settings, clock.clone()).await;
        append(&daemon.app, "i", &numbered("i", 0..5)).await;
        let whats = async |expected: &[&str]| {
            let explained = explain(&daemon, "i").await;
            let steps = explained["steps"].as_array().expect("steps");
            let whats: Vec<&str> = steps.iter().map(|step| step["what"].as_str().expect("words")).collect();
            assert_eq!(whats, expected, "{explained}");
        };
        whats(&["counts as finished", "a window of it is archived", "expires"]).await;
        finish(&daemon.app, &clock, "i").await;
        whats(&["is archived", "expires"]).await;
        clock.advance(3 * DAY);
        archive(&daemon).await;
        assert_eq!(tiers_of(&daemon, "i").await, "cold");
        whats(&["its archived lines leave the database", "expires"]).await;
        let name = key("i");
        daemon.app.archiver.hold(&name.app, &name.instance, None, true).await.expect("held");
        assert_eq!(explain(&daemon, "i").await["steps"][1]["at"], Value::Null);
        daemon.app.archiver.hold(&name.app, &name.instance, None, false).await.expect("released");
        daemon.app.archiver.delete(&name.app, &name.instance, None).await.expect("deleted");
        let explained = explain(&daemon, "i").await;
        assert_eq!(explained["state"], "deleted");
        assert!(explained["steps"].to_string().contains("its bytes have left the bucket"), "{explained}");
        daemon.get("/apps/a/instances/nobody/retention").await.expect(404);
        daemon.stop().await;
    });
}

async fn tiers_of(daemon: &Daemon, instance: &str) -> &'static str {
    tiers(&daemon.app, instance).await
}
