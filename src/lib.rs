//! logtier keeps the logs of job instances: recent ones in sharded MySQL tables, aged ones
//! compressed in object storage, and one reader over both. `ARCHITECTURE.md` is the map.

pub mod cli;
pub mod clock;
pub mod model;
