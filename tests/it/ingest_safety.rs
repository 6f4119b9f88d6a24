//! Appends from many sides at once, appends that are sent again, and texts of every kind.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use logtier::catalog::{BatchKey, NaturalKey, Reserve, ReserveError, Reserved, reserve};
use logtier::clock::Clock;
use logtier::hot;
use logtier::ingest::{AppendError, Appended, Batch, Decoded, Defaults, decode_lines, decode_text};
use logtier::model::{AttemptId, AttemptNo, Labels, LineRange, Record, Timestamp};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::harness::daemon::{Daemon, runtime};
use crate::harness::logs::{
    append, batch, finish, home, key, lines, messages, number, numbered, read_range, row, tiers,
};
use crate::harness::scenes::on_each;
use crate::harness::{ColdStore, Engine, Tiers};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn with_key(batch: Batch, key: u8, content: i64) -> Batch {
    Batch { batch_key: Some(BatchKey { hash: [key; 16], content }), ..batch }
}

/// Writes a line to an attempt, offering `id` for its row.
async fn offer(daemon: &Daemon, instance: &str, id: AttemptId) -> Result<Reserved, ReserveError> {
    let (home, now) = (home(&daemon.app, instance), Clock::default().now());
    let app_id = row(&daemon.app, "first").await.app_id;
    let line = lines(["a line"]);
    let chunk = hot::encode([&line]).expect("encoded").remove(0);
    let wanted = Reserve {
        key: NaturalKey { app_id, instance: instance.parse().expect("a name"), attempt: AttemptNo::FIRST },
        id,
        known_job: None,
        job_id: 0,
        labels: Labels::default(),
        lines: 1,
        raw_bytes: line.json().len() as u64,
        ts_range: line.ts_range(),
        levels: line.levels(),
        due_at: now,
        created_at: now,
    };
    let (db, home) = (Arc::clone(&home.db), home.clone());
    db.run_tx("test::offer", move |tx| {
        let (wanted, home, chunk) = (wanted.clone(), home.clone(), chunk.clone());
        Box::pin(async move {
            let reserved = reserve(tx, &home, &[wanted], now).await?.remove(0);
            hot::insert(tx, home.shard, &[(reserved.id, reserved.first_line, &chunk)]).await?;
            Ok(reserved)
        })
    })
    .await
}

#[test]
fn an_offered_id_that_belongs_to_another_attempt_moves_neither() {
    on_each(&[], async |daemon| {
        let app = &daemon.app;
        append(app, "first", &numbered("first", 0..3)).await;
        let shard = home(app, "first").shard;
        let mut there = (0..).map(|n| format!("there{n}")).filter(|name| home(app, name).shard == shard);
        let (second, new) = (there.next().expect("a name"), there.next().expect("a name"));
        append(app, &second, &numbered("second", 0..5)).await;
        let taken = row(app, "first").await.id;
        for instance in [&second, &new] {
            assert!(matches!(offer(daemon, instance, taken).await, Err(ReserveError::Raced)), "{instance}");
        }
        assert_eq!(row(app, "first").await.next_line, 3);
        assert_eq!(row(app, &second).await.next_line, 5);
        // One that nobody has is not used where the attempt has its own, and is where it is new.
        for (instance, first_line) in [(&second, 5), (&new, 0)] {
            let unknown = AttemptId::at(Clock::default().now(), 7);
            let reserved = offer(daemon, instance, unknown).await.expect("reserved");
            assert_eq!(reserved.first_line, first_line);
            assert_eq!(reserved.id == unknown, first_line == 0);
            let row = row(app, instance).await;
            assert_eq!((reserved.id, reserved.job_id, first_line + 1), (row.id, row.job_id, row.next_line));
        }
    });
}

#[test]
fn what_a_writer_remembers_of_an_attempt_is_not_believed() {
    on_each(&[], async |daemon| {
        let app = &daemon.app;
        let ingest = &app.ingest;
        let of_job = |job: &str| Batch { job: Some(job.parse().expect("a job")), ..batch("one", ["a line"]) };
        // Remembered without a job, it gets one; then it keeps that.
        for (wanted, first_line, other_job) in [
            (None, 0, false),
            (None, 1, false),
            (Some("a"), 2, false),
            (None, 3, false),
            (Some("a"), 4, false),
            (Some("b"), 5, true),
        ] {
            let batch = wanted.map_or_else(|| batch("one", ["a line"]), of_job);
            let appended = ingest.append(batch).await.expect("stored");
            assert_eq!((appended.first_line, appended.other_job), (first_line, other_job), "{wanted:?}");
        }
        // Over meanwhile, it still gets lines.
        finish(app, &daemon.clock, "one").await;
        assert_eq!(ingest.append(of_job("a")).await.expect("stored").first_line, 6);
        assert_eq!(messages(app, "one").await.expect("readable").len(), 7);
        // Deleted meanwhile, it gets none.
        daemon.send(daemon.client.delete(daemon.url("/api/v1/apps/a/instances/one"))).await.expect(204);
        let refused = ingest.append(of_job("a")).await;
        assert!(matches!(refused, Err(AppendError::Gone { .. })), "{refused:?}");
    });
}

const WRITERS: usize = 16;

#[test]
fn sixteen_writers_leave_no_gap_and_keep_their_own_order() {
    on_each(&[], async |daemon| {
        let writers = (0..WRITERS).map(async |writer| {
            let mut lines = 0;
            for n in 0..12 {
                // Everybody to one attempt, and round-robin to eight.
                let one = (0..3).map(|line| format!("{writer} {:06}", n * 3 + line));
                let many = [format!("{writer} {n:06}")];
                let many_to = format!("many{}", (writer + n) % 8);
                let batches = vec![batch("one", one), batch(&many_to, many)];
                for appended in daemon.app.ingest.append_all(batches).await {
                    lines += appended.expect("stored").lines;
                }
            }
            lines
        });
        let stored: u64 = join_all(writers).await.into_iter().sum();
        let mut found = 0;
        for instance in std::iter::once("one".to_owned()).chain((0..8).map(|n| format!("many{n}"))) {
            let lines = messages(&daemon.app, &instance).await.expect("readable");
            assert_eq!(row(&daemon.app, &instance).await.next_line, lines.len() as u64);
            found += lines.len();
            for writer in 0..WRITERS {
                let own = |line: &&String| line.split(' ').next() == Some(&writer.to_string());
                let own: Vec<&String> = lines.iter().filter(own).collect();
                assert!(own.is_sorted() && own.windows(2).all(|two| two[0] != two[1]), "{instance}: {own:?}");
            }
        }
        assert_eq!((found as u64, stored), (stored, (WRITERS * 12 * 4) as u64));
    });
}

#[test]
fn a_line_number_is_given_to_one_writer() {
    on_each(&[], async |daemon| {
        let at = |line, who: usize| Batch { at_line: Some(line), ..batch("i", [format!("{who} at {line}")]) };
        for line in 0..10 {
            let writers = (0..WRITERS).map(|who| daemon.app.ingest.append(at(line, who)));
            let (stored, refused): (Vec<_>, Vec<_>) = join_all(writers).await.into_iter().partition(Result::is_ok);
            assert_eq!(stored.len(), 1);
            for refused in refused {
                let next_line = line + 1;
                assert!(matches!(refused, Err(AppendError::NotNextLine { next_line: is }) if is == next_line));
            }
        }
        // In one group each counts on the one before it.
        let chain = daemon.app.ingest.append_all((10..20).map(|line| at(line, 0)).collect()).await;
        assert!(chain.iter().all(Result::is_ok), "{chain:?}");
        assert_eq!(messages(&daemon.app, "i").await.expect("readable").len(), 20);
    });
}

#[test]
fn a_batch_sent_again_is_stored_once() {
    on_each(&[], async |daemon| {
        let send = |content| daemon.app.ingest.append(with_key(batch("i", ["a", "b"]), 1, content));
        append(&daemon.app, "i", &numbered("i", 0..5)).await;
        let answers: Vec<Appended> = join_all((0..8).map(|_| send(7))).await.into_iter().map(Result::unwrap).collect();
        assert!(answers.iter().all(|answer| (answer.first_line, answer.lines) == (5, 2)), "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| !answer.repeated).count(), 1, "{answers:?}");
        assert!(matches!(send(8).await, Err(AppendError::KeyReused)));
        // The chunks go, the memory stays.
        finish(&daemon.app, &daemon.clock, "i").await;
        let report = daemon.archive().await;
        assert_eq!((&report["lines"], &report["purged_chunks"]), (&7.into(), &2.into()), "{report}");
        let again = send(7).await.expect("known");
        assert_eq!((again.first_line, again.lines, again.repeated), (5, 2, true));
        assert!(matches!(send(8).await, Err(AppendError::KeyReused)));
        assert_eq!(messages(&daemon.app, "i").await.expect("readable").len(), 7);
        // Until the window is over.
        daemon.clock.advance(2 * DAY);
        assert_eq!(daemon.archive().await["failures"], serde_json::json!([]));
        let anew = send(7).await.expect("stored");
        assert_eq!((anew.first_line, anew.repeated), (7, false));
    });
}

#[test]
fn one_key_on_two_daemons_is_stored_once() {
    let Some(tiers) = Tiers::new(Engine::MySql, ColdStore::Folder) else { return };
    runtime().block_on(async {
        let daemons = [Daemon::start(&tiers, &[]).await, Daemon::start(&tiers, &[]).await];
        for round in 0..20u8 {
            // With fresh attempts now and then: creating one is a race of its own.
            let instance = format!("i{}", round / 4);
            let sends = (0..6).map(|n| {
                let batch = with_key(batch(&instance, [format!("round {round}"), "b".to_owned()]), round, 0);
                daemons[n % 2].app.ingest.append(batch)
            });
            let answers: Vec<Appended> = join_all(sends).await.into_iter().map(Result::unwrap).collect();
            assert_eq!(answers.iter().filter(|answer| !answer.repeated).count(), 1, "{answers:?}");
            let first_lines: BTreeSet<u64> = answers.iter().map(|answer| answer.first_line).collect();
            assert_eq!(first_lines, BTreeSet::from([u64::from(round % 4) * 2]));
        }
        for daemon in daemons {
            daemon.stop().await;
        }
    });
}

#[test]
fn nothing_is_added_to_what_is_gone() {
    on_each(&[], async |daemon| {
        append(&daemon.app, "i", &numbered("i", 0..5)).await;
        let keyed = with_key(batch("i", ["keyed"]), 1, 1);
        daemon.app.ingest.append(keyed.clone()).await.expect("stored");
        finish(&daemon.app, &daemon.clock, "i").await;
        daemon.archive().await;
        // Expired by its age alone, then by its row.
        daemon.clock.advance(DAY * 200);
        for _ in 0..2 {
            let refused = daemon.app.ingest.append(batch("i", ["late"])).await;
            assert!(matches!(refused, Err(AppendError::Gone { .. })), "{refused:?}");
            let declared = crate::harness::logs::declaration("i", daemon.clock.now());
            assert!(daemon.app.catalog.declare(&declared, daemon.clock.now()).await.is_err());
            assert_eq!(row(&daemon.app, "i").await.next_line, 6);
            assert_eq!(daemon.archive().await["failures"], serde_json::json!([]));
        }
        let left = format!("SELECT COUNT(*) FROM chunk_{}", home(&daemon.app, "i").shard);
        assert_eq!(number(&home(&daemon.app, "i"), &left).await, 0);
    });
}

fn defaults(instance: &str) -> Defaults {
    Defaults {
        key: Some(key(instance)),
        arrived: Some(Timestamp::from_nanos(1_800_000_000_000_000_000)),
        max_record_bytes: 1 << 20,
        ..Defaults::default()
    }
}

/// Appends a decoded request; answers the bytes that must come back ever after.
async fn store(daemon: &Daemon, decoded: Decoded) -> Vec<u8> {
    assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
    let mut bytes = Vec::new();
    for batch in decoded.batches {
        bytes.extend_from_slice(batch.lines.json());
        daemon.app.ingest.append(batch).await.expect("stored");
    }
    bytes
}

/// The messages in stored records, as bytes, the pieces of long ones joined.
fn joined(records: &[u8]) -> Vec<Vec<u8>> {
    let (mut messages, mut open) = (Vec::new(), Vec::new());
    for json in records.split_inclusive(|byte| *byte == b'\n') {
        let record = Record::parse_json(json).expect("a record");
        open.extend_from_slice(&record.message_bytes());
        if !record.partial {
            messages.push(std::mem::take(&mut open));
        }
    }
    assert!(open.is_empty(), "the last piece is missing");
    messages
}

/// An instance, its records as they were sent, and the messages that must come back.
type Stored = (String, Vec<u8>, Vec<Vec<u8>>);

/// What is stored under each instance: the same from the hot tier now and from the cold tier later.
async fn same_from_both_tiers(daemon: &Daemon, stored: &[Stored]) {
    for tier in ["hot", "cold"] {
        for (instance, records, sent) in stored {
            let (read, from) = read_range(&daemon.app, instance, LineRange::new(0, u64::MAX)).await.expect("readable");
            assert!(read == *records, "{instance}: other bytes from the {tier} tier");
            assert!(joined(&read) == *sent, "{instance}: other messages from the {tier} tier");
            assert!(read.is_empty() || from.as_str() == tier);
            finish(&daemon.app, &daemon.clock, instance).await;
        }
        let report = daemon.archive().await;
        assert_eq!(report["failures"], serde_json::json!([]), "{report}");
    }
}

#[test]
fn odd_texts_come_back_unchanged() {
    on_each(&[], async |daemon| {
        let odd: Vec<String> = [
            "",
            " ",
            "\0",
            "a\0b",
            "a\nb\r\nc\r",
            "\u{1b}[31mred\u{1b}[0m",
            "\u{2028}\u{2029}\u{feff}\u{85}",
            "\u{7f}\u{1}\u{1f}",
            "\u{fffd}",
            "中文 日本語 🦀 e\u{301}",
            "\"\\\"{}[],:",
            "\\u0000 \\n",
        ]
        .map(str::to_owned)
        .into();
        let as_json = |message: &String| format!("{{\"message\":{}}}\n", serde_json::Value::from(message.as_str()));
        let body: String = odd.iter().map(as_json).collect();
        let odd = odd.into_iter().map(String::into_bytes).collect();
        let mut stored = Vec::new();
        let decoded = decode_lines(body.as_bytes(), &defaults("odd")).expect("JSON");
        stored.push(("odd".to_owned(), store(daemon, decoded).await, odd));

        // Half a pair of surrogates is no character: kept as the three bytes that stand for it.
        let body = br#"{"message":"a\ud800b"}"#;
        let decoded = decode_lines(body, &defaults("surrogate")).expect("JSON");
        assert_eq!(decoded.not_utf8, 1);
        stored.push(("surrogate".to_owned(), store(daemon, decoded).await, vec![b"a\xED\xA0\x80b".to_vec()]));

        let text = b"latin \xE9\nzeros \0\0\n\n\xFF\xFE\n";
        let decoded = decode_text(text, &defaults("bytes"));
        let sent = text[..text.len() - 1].split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        stored.push(("bytes".to_owned(), store(daemon, decoded).await, sent));

        // 3 MiB and some bytes: text, then bytes; both in pieces, between two short lines.
        let long = "€uro ".repeat(3 * (1 << 20) / 7 + 9).into_bytes();
        let bytes: Vec<u8> = (0..3 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8 | 0x80).collect();
        let sent = vec![b"before".to_vec(), long, bytes, b"after".to_vec()];
        let decoded = decode_text(&sent.join(&b'\n'), &defaults("long"));
        assert_eq!(decoded.accepted, 4);
        stored.push(("long".to_owned(), store(daemon, decoded).await, sent));
        same_from_both_tiers(daemon, &stored).await;
        assert_eq!(tiers(&daemon.app, "long").await, "cold");
    });
}

#[test]
fn any_text_comes_back_unchanged() {
    let line = prop_oneof![
        any::<String>().prop_map(String::into_bytes),
        "\\PC{0,300}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..200),
    ];
    let line = line.prop_map(|mut line| {
        line.retain(|byte| *byte != b'\n');
        line
    });
    let log = proptest::collection::vec(line, 1..120);
    on_each(&[], async |daemon| {
        let (mut runner, mut stored) = (TestRunner::default(), Vec::new());
        for case in 0..30 {
            let sent = log.new_tree(&mut runner).expect("a value").current();
            let instance = format!("case {case}");
            let mut body = sent.join(&b'\n');
            body.push(b'\n');
            let mut records = Vec::new();
            // In one request, or in two that meet between any two lines.
            let cut = body.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let cut = if case % 2 == 0 { 0 } else { cut };
            for body in [&body[..cut], &body[cut..]] {
                records.extend(store(daemon, decode_text(body, &defaults(&instance))).await);
            }
            stored.push((instance, records, sent));
        }
        same_from_both_tiers(daemon, &stored).await;
    });
}
