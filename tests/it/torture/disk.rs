//! A small disk under both embedded tiers that fills, and gets room again.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::load::text_of;
use super::told;
use crate::harness::daemon::runtime;
use crate::harness::process::Process;
use crate::harness::{ColdStore, Engine, Tiers, note_skip};

/// The disk at first, and what it grows by each time that it was full.
const MEGABYTES: u64 = 6;

#[test]
fn a_full_disk_loses_nothing_and_is_left_behind() {
    let tiers = Tiers::new(Engine::Sqlite, ColdStore::Folder).expect("embedded");
    let Some(disk) = Disk::mount(tiers.folder()) else {
        return note_skip("a full disk, as only root may mount a small one");
    };
    let rounds = if told().1 { 20 } else { 1 };
    runtime().block_on(fill(&tiers, &disk, rounds));
}

async fn fill(tiers: &Tiers, disk: &Disk<'_>, rounds: u64) {
    let settings = [("LOGTIER_ARCHIVE__MAX_DELAY", "0s"), ("LOGTIER_LOG__LEVEL", "warn")];
    let daemon = Process::start(tiers, &settings).await;
    let mut acknowledged = 0;
    for round in 1..=rounds {
        let mut refused = 0;
        let began = Instant::now();
        while refused < 5 {
            assert!(began.elapsed() < Duration::from_secs(120), "the disk does not fill");
            match push(&daemon, acknowledged).await {
                (200, _) => acknowledged += 1,
                (503, _) => refused += 1,
                (status, text) => panic!("{status} {text}"),
            }
        }
        assert_eq!(daemon.probe("/readyz").await.0, 503);
        // Reads need no room.
        check(&daemon, acknowledged).await;
        disk.grow(MEGABYTES * (round + 1));
        let began = Instant::now();
        while push(&daemon, acknowledged).await.0 != 200 {
            assert!(began.elapsed() < Duration::from_secs(60), "there is room again, and it takes nothing");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        acknowledged += 1;
    }
    let finished = daemon.post("/apps/t/instances/disk/finish", "application/json", "{}").await;
    assert_eq!(finished.0, 200, "{}", finished.1);
    disk.grow(MEGABYTES * (rounds + 8));
    daemon.archive().await;
    check(&daemon, acknowledged).await;
    eprintln!(
        "| a full disk, {rounds} times | |\n| --- | --- |\n| lines acknowledged, all read | {} |",
        acknowledged * LINES
    );
}

const LINES: u64 = 500;

async fn push(daemon: &Process, number: u64) -> (u16, String) {
    // Text that does not compress well, so that the disk fills soon.
    let noise = |line: u64| format!("{:016x}", line.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let text: String = (number * LINES..(number + 1) * LINES)
        .map(|line| format!("disk {line} {} {} {}\n", noise(line), noise(line + 7), noise(line * 31)))
        .collect();
    daemon.post("/apps/t/instances/disk/records", "text/plain", text).await
}

async fn check(daemon: &Process, batches: u64) {
    let (status, text) = daemon.get("/apps/t/instances/disk/download?format=raw").await;
    assert_eq!(status, 200, "{text}");
    let found: String = text
        .lines()
        .map(|line| {
            let end = line.match_indices(' ').nth(1).map_or(line.len(), |(at, _)| at);
            format!("{}\n", &line[..end])
        })
        .collect();
    let lines = text.lines().count() as u64;
    assert!(lines >= batches * LINES, "{lines} lines of {}", batches * LINES);
    assert!(found == text_of("disk", 0..lines), "other lines than were sent");
}

/// A small file system in memory; unmounted with this value.
struct Disk<'f>(&'f Path);

impl<'f> Disk<'f> {
    fn mount(folder: &'f Path) -> Option<Disk<'f>> {
        let size = format!("size={MEGABYTES}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Disk(folder))
    }

    fn grow(&self, megabytes: u64) {
        let size = format!("remount,size={megabytes}m");
        let grown = Command::new("mount").args(["-o", &size]).arg(self.0).status().expect("mount");
        assert!(grown.success(), "the disk cannot grow");
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}
