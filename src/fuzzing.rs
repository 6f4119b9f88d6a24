//! Hostile input: mutates samples until time is up, and keeps what gives a new answer.
//!
//! `cargo fuzz` needs a nightly compiler for its coverage; this needs nothing. The answer of the code
//! under test (an error's words without their numbers) stands in for coverage: an input that is
//! refused in a new way becomes a sample. `make fuzz` gives it minutes, `make test` moments.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `LOGTIER_FUZZ_MINUTES=N` | how long each target is tried; else a moment |
//! | `LOGTIER_SEED=N` | the same mutations again |

#![expect(clippy::print_stderr, reason = "a fuzz run says what it did")]

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::clock::Clock;

/// Inputs grow no larger: a bomb is small before it bursts.
const MAX_INPUT_BYTES: usize = 1 << 20;

/// Samples kept beside the first ones.
const MAX_CORPUS: usize = 4_000;

/// What a process that fuzzes one target may take, in MiB: two of the largest frames (64 MiB each) as
/// they are and compressed, the corpus, and the libraries.
const MAX_MIB: u64 = 512;

/// Without minutes: so long or so often, whichever is over first.
const MOMENT: Duration = Duration::from_millis(400);

/// Calls `target` with mutations of `corpus`; it answers in words. Fails where it panics or where the
/// process grows.
pub fn fuzz(name: &str, corpus: Vec<Vec<u8>>, mut target: impl FnMut(&[u8]) -> String) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let minutes = number("LOGTIER_FUZZ_MINUTES");
    let seed = number("LOGTIER_SEED").unwrap_or(if minutes.is_some() { rand::random::<u32>().into() } else { 1 });
    let (clock, mut rng) = (Clock::default(), StdRng::seed_from_u64(seed));
    let time = minutes.map_or(MOMENT, |minutes| Duration::from_secs(60 * minutes));
    let (began, firsts) = (clock.instant(), corpus.len());
    let (mut corpus, mut answers, mut executions, mut slowest) = (corpus, HashSet::new(), 0u64, Duration::ZERO);
    for sample in &corpus {
        answers.insert(without_numbers(&target(sample)));
    }
    while began.elapsed() < time {
        let mut input = corpus.choose(&mut rng).cloned().unwrap_or_default();
        for _ in 0..1 << rng.random_range(0..4) {
            mutate(&mut input, &corpus, &mut rng);
        }
        input.truncate(MAX_INPUT_BYTES);
        let started = clock.instant();
        let answer = catch_unwind(AssertUnwindSafe(|| target(&input))).unwrap_or_else(|panic| {
            let file = std::env::temp_dir().join(format!("logtier-fuzz-{name}"));
            let kept = std::fs::write(&file, &input);
            eprintln!("{name} panics at execution {executions} with LOGTIER_SEED={seed}: {} {kept:?}", file.display());
            resume_unwind(panic)
        });
        slowest = slowest.max(started.elapsed());
        executions += 1;
        if answers.insert(without_numbers(&answer)) && corpus.len() < firsts + MAX_CORPUS {
            corpus.push(input);
        }
    }
    let mib = peak_mib();
    let (answers, slowest) = (answers.len(), slowest.as_millis());
    eprintln!("| {name} | {} s | {executions} | {answers} | {slowest} ms | {mib} MiB |", began.elapsed().as_secs());
    assert!(minutes.is_none() || mib < MAX_MIB, "{name} took {mib} MiB");
}

/// One change.
fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], rng: &mut StdRng) {
    if input.is_empty() {
        input.push(rng.random());
        return;
    }
    let at = rng.random_range(0..input.len());
    let end = at + rng.random_range(0..=(input.len() - at).min(64));
    match rng.random_range(0..10) {
        0 => input[at] ^= 1 << rng.random_range(0..8),
        1 => input[at] = rng.random(),
        2 => input[at] = *[0, 1, 0x7F, 0x80, 0xFF, b'"', b'\\', b'\n', b'{', b'['].choose(rng).unwrap_or(&0),
        3 => drop(input.drain(at..end)),
        4 => input.truncate(at),
        5 => {
            let piece = input[at..end].to_vec();
            let times = 1 << rng.random_range(0..12);
            input.splice(at..at, piece.iter().copied().cycle().take(piece.len() * times));
        }
        6 => {
            let other = corpus.choose(rng).cloned().unwrap_or_default();
            if !other.is_empty() {
                let from = rng.random_range(0..other.len());
                let to = rng.random_range(from..=other.len());
                input.splice(at..end, other[from..to].iter().copied());
            }
        }
        7 => {
            let number: u64 = *[0, 1, 0xFFFF, 1 << 31, u64::from(u32::MAX), 1 << 40, i64::MAX as u64, u64::MAX]
                .choose(rng)
                .unwrap_or(&0);
            let bytes = number.to_le_bytes();
            let width = *[2, 4, 8].choose(rng).unwrap_or(&8);
            let end = (at + width).min(input.len());
            input[at..end].copy_from_slice(&bytes[..end - at]);
        }
        8 => {
            let byte = input[at];
            input[at] = byte.wrapping_add(rng.random_range(0..35)).wrapping_sub(17);
        }
        _ => {
            let fresh: Vec<u8> = (0..rng.random_range(1..9)).map(|_| rng.random()).collect();
            input.splice(at..at, fresh);
        }
    }
}

fn without_numbers(answer: &str) -> String {
    answer.chars().filter(|c| !c.is_ascii_digit()).take(200).collect()
}

/// The most memory that this process has had at once.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}
