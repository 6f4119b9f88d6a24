//! The cold tier (essay comes with the last commit).

mod error;
mod keys;
mod open;
pub mod segment;
mod store;
mod upload;

pub use error::{Error, Result};
pub use keys::{Key, KeyKind, ObjectName, SegmentKey};
pub use open::{StoreSettings, install_crypto_provider};
pub use store::{ByteStream, Counters, Listed, Store};
pub use upload::{Upload, Uploaded};
