//! The integration tests: one binary, so that it is linked once and its tests share the processors.
//!
//! `make test` runs them on SQLite and a folder, and on MariaDB and an S3 server; `harness` says which
//! environment variables point them at other servers.

// A test is its own supervisor and has no clock to move.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::expect_used, clippy::print_stderr, clippy::unwrap_used)]

mod architecture;
mod compaction;
mod crash;
mod download;
mod end_to_end;
mod explain;
mod gentle;
mod harness;
mod import;
mod ingest_safety;
mod life;
mod move_safety;
mod pairing;
mod poison;
mod powerjob_proxy;
mod powerjob_s3;
mod read_cost;
mod read_model;
mod readers;
mod rebuild;
mod retention;
mod scrub;
mod search;
mod simulation;
mod stores;
mod symptom;
mod torture;
mod two_daemons;
mod verify;
