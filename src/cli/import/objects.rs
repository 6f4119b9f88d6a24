//! PowerJob's bucket in MinIO, OSS or another S3: `log/oms-{id}.log` in it.

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use url::Url;

use super::mysql::InstanceTable;
use super::powerjob::{self, Facts, MAX_SAMPLES, Sample};
use super::report::Skip;
use super::{Found, Lines, Log, PIECE_BYTES, Source};
use crate::cold::{Error, Key, Listed, Store, StoreSettings};
use crate::protocol::powerjob::{InstanceId, is_placeholder};

/// Objects of a page, as many as S3 lists at once.
const PAGE_OBJECTS: usize = 1_000;
/// A longer object is no placeholder.
const SMALL_BYTES: u64 = 256;

/// What a bucket's URL does not say. Keys come from the environment, as for the services' own tools.
#[derive(Debug, Args)]
pub(super) struct StoreArgs {
    /// The address of an S3 service other than Amazon's
    #[arg(long, value_name = "URL")]
    endpoint: Option<Url>,
    /// The region of the bucket
    #[arg(long)]
    region: Option<String>,
    /// The bucket stands in the host name
    #[arg(long)]
    virtual_hosted_style: bool,
}

impl StoreArgs {
    pub(super) fn open(&self, url: Url) -> anyhow::Result<Store> {
        let mut settings = StoreSettings::new(url);
        settings.allow_http = self.endpoint.as_ref().is_some_and(|endpoint| endpoint.scheme() == "http");
        settings.endpoint = self.endpoint.clone();
        settings.region = self.region.clone();
        settings.virtual_hosted_style = self.virtual_hosted_style.then_some(true);
        Store::open(&settings).context("open the bucket")
    }
}

/// The objects below a prefix. A bucket keeps one copy of each log.
pub(super) struct Objects {
    store: Store,
    listing: BoxStream<'static, Vec<Result<Listed, Error>>>,
    instances: Option<InstanceTable>,
    settings: powerjob::Settings,
}

impl Objects {
    pub(super) fn new(store: Store, instances: Option<InstanceTable>, settings: powerjob::Settings) -> Self {
        let listing = store.list("").chunks(PAGE_OBJECTS).boxed();
        Self { store, listing, instances, settings }
    }

    /// Some logs, to look at before the rest.
    pub(super) async fn samples(&self) -> anyhow::Result<Vec<Sample<Listed>>> {
        let mut samples = Vec::new();
        let mut listing = self.store.list("").take(PAGE_OBJECTS);
        while let Some(object) = listing.try_next().await.context("list the bucket")? {
            if let Some(id) = InstanceId::of_file(&name_of(&object)).filter(|_| samples.len() < MAX_SAMPLES) {
                samples.push((object, id));
            }
        }
        Ok(samples)
    }

    async fn judge(&self, object: &Listed) -> anyhow::Result<Result<InstanceId, Skip>> {
        let Some(id) = InstanceId::of_file(&name_of(object)) else { return Ok(Err(Skip::NotALog)) };
        if object.byte_length <= SMALL_BYTES {
            let body = self.read(object, 0).await?;
            if body.is_some_and(|body| is_placeholder(&body)) {
                return Ok(Err(Skip::Placeholder));
            }
        }
        Ok(Ok(id))
    }
}

/// Without the folders below the prefix.
fn name_of(object: &Listed) -> String {
    let key = object.key.to_string();
    key.rsplit('/').next().unwrap_or_default().to_owned()
}

impl Source for Objects {
    type Key = Listed;

    async fn next_page(&mut self) -> anyhow::Result<Option<Vec<Found<Listed>>>> {
        let Some(page) = self.listing.next().await else { return Ok(None) };
        let mut judged = Vec::with_capacity(page.len());
        for object in page {
            let object = object.context("list the bucket")?;
            let verdict = self.judge(&object).await?;
            judged.push((object, verdict));
        }
        let ids: Vec<InstanceId> = judged.iter().filter_map(|(_, verdict)| verdict.ok()).collect();
        let facts = powerjob::facts_of(self.instances.as_ref(), &ids).await?;
        let found = judged.into_iter().map(|(object, verdict)| match verdict {
            Ok(id) => Found::Log(Log {
                name: object.key.to_string(),
                version: object.byte_length.to_string(),
                bytes: object.byte_length,
                target: Facts::target(facts.get(&id).copied(), id),
                key: object,
            }),
            Err(why) => Found::Skipped { name: object.key.to_string(), why },
        });
        Ok(Some(found.collect()))
    }

    async fn read(&self, object: &Listed, offset: u64) -> anyhow::Result<Option<Bytes>> {
        let end = object.byte_length.min(offset + PIECE_BYTES);
        let piece = self.store.get_range(&object.key, offset.min(end)..end).await;
        match piece {
            Ok(piece) => Ok(Some(piece)),
            // Replaced by a shorter one since it was listed, or gone.
            Err(Error::NotFound { .. } | Error::Corrupt { .. }) => Ok(None),
            Err(error) => Err(error).context("read an object"),
        }
    }

    fn lines(&self, log: &Log<Listed>) -> Lines {
        self.settings.lines(&log.target)
    }
}

/// The prefix of a bucket's URL, and nothing secret.
pub(super) fn shown(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), Key::stored(url.path()))
}
