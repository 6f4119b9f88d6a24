//! The one door to the bucket: every request is made, counted and its failure named here.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt};

use super::error::{Error, Result};
use super::keys::Key;
use super::open::{self, StoreSettings};
use super::upload::Upload;

/// A read whose answer has not begun by then, retries included, is told that the tier is away: people and
/// proxies wait for 30 s at most, and a store that lives begins to answer within one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// The largest object that [`Store::get`] takes into memory; marks and the cluster object have some hundred bytes.
const MAX_SMALL_OBJECT_BYTES: u64 = 1 << 20;

/// Bytes of an object as they arrive. Ends only after all that were asked for; a break is an error.
pub type ByteStream = BoxStream<'static, Result<Bytes>>;

/// The cold tier's object store below one prefix. Clones share it and its counters.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    folder: Option<std::path::PathBuf>,
    counters: Counters,
}

/// Requests and bytes since the store was opened, retries inside of a request not counted.
#[derive(Debug, Default)]
pub struct Counters {
    pub gets: AtomicU64,
    /// Puts, and each step of a multipart upload.
    pub puts: AtomicU64,
    pub deletes: AtomicU64,
    /// Listings begun and size lookups.
    pub lists: AtomicU64,
    /// Bytes written to the store.
    pub bytes_in: AtomicU64,
    /// Bytes read from the store.
    pub bytes_out: AtomicU64,
    /// Requests that failed, "not there" excepted.
    pub errors: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub key: Key,
    pub byte_length: u64,
}

impl Store {
    /// Opens the store without asking it anything; a folder is created.
    pub fn open(settings: &StoreSettings) -> Result<Self> {
        let opened = open::open(settings)?;
        let prefix = Path::parse(&opened.prefix).map_err(|error| Error::Settings { source: error.into() })?;
        Ok(Self::new(opened.objects, prefix, opened.folder))
    }

    /// A store over any implementation, for tests and faults. `prefix` may be empty.
    pub fn from_object_store(objects: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        Self::new(objects, Path::from(prefix), None)
    }

    fn new(objects: Arc<dyn ObjectStore>, prefix: Path, folder: Option<std::path::PathBuf>) -> Self {
        Self { shared: Arc::new(Shared { objects, prefix, folder, counters: Counters::default() }) }
    }

    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// A whole small object; one above 1 MiB is `Corrupt`.
    pub async fn get(&self, key: &Key) -> Result<Bytes> {
        let result = self.request_get(key, GetOptions::default()).await?;
        let size = result.meta.size;
        if size > MAX_SMALL_OBJECT_BYTES {
            return Err(Error::corrupt(key, format!("{size} bytes where at most {MAX_SMALL_OBJECT_BYTES} may be")));
        }
        self.collect(key, result).await
    }

    /// The bytes of `range`, which must lie inside of the object: `Corrupt` where it ends too early.
    pub async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let result = self.request_range(key, range).await?;
        self.collect(key, result).await
    }

    /// The same as a stream: one request, any length, the memory of a network buffer.
    pub async fn stream_range(&self, key: &Key, range: Range<u64>) -> Result<ByteStream> {
        if range.is_empty() {
            return Ok(futures::stream::empty().boxed());
        }
        let result = self.request_range(key, range).await?;
        Ok(self.counted(key, result))
    }

    /// The object's length in bytes.
    pub async fn head(&self, key: &Key) -> Result<u64> {
        Counters::add(&self.counters().lists, 1);
        let meta = self.objects().head(&self.path(key)?).await;
        meta.map(|meta| meta.size).map_err(|error| self.failed("look up", key, error))
    }

    /// Writes a whole object in one request, replacing what was there.
    pub async fn put(&self, key: &Key, bytes: Bytes) -> Result<()> {
        let (path, len) = (self.path(key)?, bytes.len() as u64);
        Counters::add(&self.counters().puts, 1);
        self.objects().put(&path, bytes.into()).await.map_err(|error| self.failed("write", key, error))?;
        Counters::add(&self.counters().bytes_in, len);
        Ok(())
    }

    /// Starts a streaming write; nothing is sent before its first part is full.
    pub fn upload(&self, key: &Key) -> Upload {
        Upload::new(self.clone(), key.clone())
    }

    /// Deletes the object, and what an interrupted write of it left behind in a folder. Missing is fine.
    pub async fn delete(&self, key: &Key) -> Result<()> {
        Counters::add(&self.counters().deletes, 1);
        self.remove_staged(key).await?;
        match self.objects().delete(&self.path(key)?).await.map_err(|error| self.failed("delete", key, error)) {
            Err(Error::NotFound { .. }) => Ok(()),
            result => result,
        }
    }

    /// All objects in a folder (ending in `/`) below the prefix; for audits, never for a read.
    pub fn list(&self, folder: &str) -> BoxStream<'static, Result<Listed>> {
        Counters::add(&self.counters().lists, 1);
        let (store, key) = (self.clone(), Key::stored(folder));
        let path = match self.path(&key) {
            Ok(path) => path,
            Err(error) => return futures::stream::once(async { Err(error) }).boxed(),
        };
        let listed = self.objects().list(Some(&path));
        let listed = listed.filter_map(move |meta| {
            let item = meta.map_err(|error| store.failed("list", &key, error)).map(|meta| store.listed(&meta));
            std::future::ready(item.transpose())
        });
        listed.boxed()
    }

    /// What stands directly in a folder: the folders in it, each ending in `/`, and the objects. In no
    /// order, all in memory: some 150 bytes each. For audits, as [`Store::list`].
    pub async fn list_folder(&self, folder: &str) -> Result<(Vec<String>, Vec<Listed>)> {
        Counters::add(&self.counters().lists, 1);
        let key = Key::stored(folder);
        let found = self.objects().list_with_delimiter(Some(&self.path(&key)?)).await;
        let found = found.map_err(|error| self.failed("list", &key, error))?;
        let folders = found.common_prefixes.iter().filter_map(|path| Some(format!("{}/", self.below_prefix(path)?)));
        let objects = found.objects.iter().filter_map(|meta| self.listed(meta));
        Ok((folders.collect(), objects.collect()))
    }

    fn below_prefix(&self, path: &Path) -> Option<String> {
        let below: Vec<_> = path.prefix_match(&self.shared.prefix)?.collect();
        Some(below.iter().map(AsRef::as_ref).collect::<Vec<_>>().join("/"))
    }

    fn listed(&self, meta: &object_store::ObjectMeta) -> Option<Listed> {
        Some(Listed { key: Key::stored(self.below_prefix(&meta.location)?), byte_length: meta.size })
    }

    pub(super) fn objects(&self) -> &dyn ObjectStore {
        &*self.shared.objects
    }

    /// The key below the prefix, as it is: its percent signs are part of the name.
    pub(super) fn path(&self, key: &Key) -> Result<Path> {
        let prefix = self.shared.prefix.as_ref();
        let slash = if prefix.is_empty() { "" } else { "/" };
        Path::parse(format!("{prefix}{slash}{key}"))
            .map_err(|error| Error::invalid(format!("\"{key}\" is no object key: {error}")))
    }

    pub(super) fn failed(&self, action: &'static str, key: &Key, error: object_store::Error) -> Error {
        let error = Error::from_store(action, key, error);
        if !matches!(error, Error::NotFound { .. }) {
            Counters::add(&self.counters().errors, 1);
        }
        error
    }

    async fn request_get(&self, key: &Key, options: GetOptions) -> Result<GetResult> {
        Counters::add(&self.counters().gets, 1);
        let path = self.path(key)?;
        let Ok(result) = tokio::time::timeout(ANSWER_TIMEOUT, self.objects().get_opts(&path, options)).await else {
            Counters::add(&self.counters().errors, 1);
            let source = format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()).into();
            return Err(Error::Unavailable { action: "read", key: key.clone(), source });
        };
        match result.map_err(|error| self.failed("read", key, error)) {
            Err(Error::NotFound { .. }) if *key != Key::cluster() => Err(self.absent(key).await),
            result => result,
        }
    }

    /// Why an object is not there: of a store that was emptied, is not mounted, or is another one, nothing
    /// can be said (I8).
    async fn absent(&self, key: &Key) -> Error {
        match self.head(&Key::cluster()).await {
            Ok(_) => Error::NotFound { key: key.clone() },
            Err(Error::NotFound { key: mark }) => {
                let source = format!("it holds no {mark}: it was emptied, is not mounted, or is another one").into();
                Error::Unavailable { action: "read", key: key.clone(), source }
            }
            Err(error) => error,
        }
    }

    async fn request_range(&self, key: &Key, range: Range<u64>) -> Result<GetResult> {
        let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        let result = self.request_get(key, options).await?;
        if result.range != range {
            Counters::add(&self.counters().errors, 1);
            return Err(Error::corrupt(key, format!("it ends at {} of {} bytes", result.range.end, range.end)));
        }
        Ok(result)
    }

    async fn collect(&self, key: &Key, result: GetResult) -> Result<Bytes> {
        // The size comes from the store; what really arrives decides how much is allocated.
        let mut bytes = BytesMut::new();
        let mut stream = self.counted(key, result);
        while let Some(piece) = stream.try_next().await? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    }

    /// Counts the bytes that arrive, and turns an end that comes too early into an error (I8).
    fn counted(&self, key: &Key, result: GetResult) -> ByteStream {
        let expected = result.range.end - result.range.start;
        let state = (result.into_stream(), self.clone(), key.clone(), 0u64);
        let stream = futures::stream::try_unfold(state, move |(mut stream, store, key, got)| async move {
            let piece = stream.try_next().await.map_err(|error| store.failed("read", &key, error))?;
            let Some(piece) = piece else {
                if got == expected {
                    return Ok(None);
                }
                Counters::add(&store.counters().errors, 1);
                return Err(Error::cut_short(&key, got, expected));
            };
            let got = got + piece.len() as u64;
            if got > expected {
                return Err(Error::corrupt(&key, format!("more than the {expected} bytes asked for")));
            }
            Counters::add(&store.counters().bytes_out, piece.len() as u64);
            Ok(Some((piece, (stream, store, key, got))))
        });
        stream.boxed()
    }

    /// A folder's writes are staged as `{key}#1`, `#2` …; a killed process leaves such a file, and no
    /// listing shows it. (What a killed process leaves in S3 or GCS is a matter of the bucket's
    /// life-cycle rule for incomplete uploads.)
    async fn remove_staged(&self, key: &Key) -> Result<()> {
        let Some(folder) = &self.shared.folder else { return Ok(()) };
        let failed = |error| Error::Unavailable { action: "delete", key: key.clone(), source: Box::new(error) };
        for number in 1.. {
            match tokio::fs::remove_file(folder.join(format!("{key}#{number}"))).await {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({} / {})", self.shared.objects, self.shared.prefix)
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    fn stores(folder: &std::path::Path) -> [Store; 3] {
        let url = url::Url::from_directory_path(folder).expect("absolute");
        [
            Store::from_object_store(Arc::new(InMemory::new()), ""),
            Store::from_object_store(Arc::new(InMemory::new()), "some/prefix"),
            Store::open(&StoreSettings::new(url)).expect("folder"),
        ]
    }

    #[tokio::test]
    async fn what_is_put_is_there_until_deleted() {
        let folder = tempfile::tempdir().expect("folder");
        for store in stores(folder.path()) {
            let key = Key::stored("v1/app=a%2Fb%25/x");
            assert!(matches!(store.head(&key).await, Err(Error::NotFound { .. })));
            store.put(&key, Bytes::from_static(b"0123456789")).await.expect("put");
            assert_eq!(store.get(&key).await.expect("get"), "0123456789");
            assert_eq!(store.get_range(&key, 2..5).await.expect("range"), "234");
            assert_eq!(store.head(&key).await.expect("head"), 10);
            let listed: Vec<_> = store.list(Key::v1_folder()).try_collect().await.expect("list");
            assert_eq!(listed, [Listed { key: key.clone(), byte_length: 10 }]);
            let folder = store.list_folder("v1/").await.expect("list");
            assert_eq!(folder, (vec!["v1/app=a%2Fb%25/".to_owned()], vec![]));
            let folder = store.list_folder("v1/app=a%2Fb%25/").await.expect("list");
            assert_eq!(folder, (vec![], vec![Listed { key: key.clone(), byte_length: 10 }]));
            assert_eq!(store.list_folder("v1/nothing/").await.expect("list"), (vec![], vec![]));
            store.delete(&key).await.expect("delete");
            store.delete(&key).await.expect("delete again");
            assert!(matches!(store.head(&key).await, Err(Error::NotFound { .. })));
        }
    }

    #[tokio::test]
    async fn of_a_store_without_its_mark_nothing_is_said_to_be_missing() {
        let folder = tempfile::tempdir().expect("folder");
        for store in stores(folder.path()) {
            let key = Key::stored("v1/x");
            assert!(matches!(store.get(&Key::cluster()).await, Err(Error::NotFound { .. })));
            let error = store.get_range(&key, 0..5).await.expect_err("nothing there");
            assert!(!error.is_permanent(), "{error:?}");
            store.put(&Key::cluster(), Bytes::from_static(b"mark")).await.expect("put");
            let error = store.get_range(&key, 0..5).await.expect_err("nothing there");
            assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
        }
    }

    #[tokio::test]
    async fn a_range_beyond_the_end_is_damage_not_an_outage() {
        let folder = tempfile::tempdir().expect("folder");
        for store in stores(folder.path()) {
            let key = Key::cluster();
            store.put(&key, Bytes::from_static(b"0123456789")).await.expect("put");
            for range in [5..11, 10..12, 100..200] {
                let error = store.get_range(&key, range.clone()).await.expect_err("too long");
                assert!(matches!(error, Error::Corrupt { .. }), "{range:?}: {error:?}");
            }
            assert_eq!(store.counters().errors.load(Ordering::Relaxed), 3);
            assert_eq!(store.get_range(&key, 4..4).await.expect("empty"), "");
        }
    }

    #[tokio::test]
    async fn requests_and_bytes_are_counted() {
        let store = Store::from_object_store(Arc::new(InMemory::new()), "");
        let key = Key::cluster();
        store.put(&key, Bytes::from_static(b"0123456789")).await.expect("put");
        store.get_range(&key, 0..4).await.expect("get");
        let stream = store.stream_range(&key, 1..10).await.expect("stream");
        assert_eq!(
            stream.map_ok(|piece| piece.len()).try_fold(0, |a, b| async move { Ok(a + b) }).await.expect("all"),
            9
        );
        let counters = store.counters();
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        assert_eq!((value(&counters.gets), value(&counters.bytes_out)), (2, 13));
        assert_eq!((value(&counters.puts), value(&counters.bytes_in), value(&counters.errors)), (1, 10, 0));
    }

    #[tokio::test]
    async fn an_answer_that_ends_early_is_an_outage_not_an_end() {
        let store = Store::from_object_store(Arc::new(InMemory::new()), "");
        let meta = object_store::ObjectMeta {
            location: Path::from("x"),
            last_modified: Default::default(),
            size: 10,
            e_tag: None,
            version: None,
        };
        let answer = |pieces: &[&'static [u8]]| {
            let pieces: Vec<_> = pieces.iter().map(|piece| Ok(Bytes::from_static(piece))).collect();
            GetResult {
                payload: object_store::GetResultPayload::Stream(futures::stream::iter(pieces).boxed()),
                meta: meta.clone(),
                range: 0..10,
                attributes: Default::default(),
                extensions: Default::default(),
            }
        };
        let key = Key::stored("x");
        assert_eq!(store.collect(&key, answer(&[b"01234", b"56789"])).await.expect("whole"), "0123456789");
        let short = store.collect(&key, answer(&[b"01234", b"5678"])).await;
        assert!(matches!(short, Err(Error::Unavailable { .. })), "{short:?}");
        let long = store.collect(&key, answer(&[b"01234", b"567890"])).await;
        assert!(matches!(long, Err(Error::Corrupt { .. })), "{long:?}");
    }

    #[tokio::test]
    async fn a_small_object_that_is_large_is_refused() {
        let store = Store::from_object_store(Arc::new(InMemory::new()), "");
        let key = Key::cluster();
        store.put(&key, vec![0; (MAX_SMALL_OBJECT_BYTES + 1) as usize].into()).await.expect("put");
        assert!(matches!(store.get(&key).await, Err(Error::Corrupt { .. })));
    }

    #[tokio::test]
    async fn a_delete_takes_the_staged_files_of_a_killed_writer_along() {
        let folder = tempfile::tempdir().expect("folder");
        let [.., store] = stores(folder.path());
        let key = Key::stored("v1/x.ndjson.zst");
        std::fs::create_dir_all(folder.path().join("v1")).expect("folder");
        for left in ["v1/x.ndjson.zst#1", "v1/x.ndjson.zst#2"] {
            std::fs::write(folder.path().join(left), b"half").expect("written");
        }
        store.delete(&key).await.expect("deleted");
        assert_eq!(std::fs::read_dir(folder.path().join("v1")).expect("folder").count(), 0);
    }
}
