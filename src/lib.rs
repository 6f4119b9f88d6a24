//! logtier keeps the logs of job instances: recent ones in sharded MySQL tables, aged ones
//! compressed in object storage, and one reader over both. `ARCHITECTURE.md` is the map.

pub mod app;
pub mod archive;
pub mod audit;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod cold;
pub mod config;
pub mod db;
#[cfg(test)]
mod fuzzing;
pub mod hot;
pub mod http;
pub mod ingest;
mod memory;
pub mod model;
pub mod pairing;
pub mod pause;
pub mod protocol;
pub mod read;
pub mod supervisor;
pub mod telemetry;
mod tiers;
