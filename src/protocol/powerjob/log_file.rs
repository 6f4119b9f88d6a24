//! A stored log as the file that PowerJob would have written.

use std::error::Error;

use bytes::Bytes;
use chrono_tz::Tz;
use futures::Stream;

use super::Renderer;
use crate::model::{LineRange, Record};
use crate::read::{Lines, ReadError, Reader, View};

/// Reads a file, block by block.
pub struct LogFile {
    lines: Lines,
    renderer: Renderer,
}

impl LogFile {
    pub fn open(reader: &Reader, view: &View, range: LineRange, zone: Tz) -> Self {
        Self { lines: reader.lines(view, range), renderer: Renderer::new(zone) }
    }

    /// The next bytes; `None` behind the last. A stream that cannot go on is an error, never an end (I8).
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        let Some(block) = self.lines.next().await? else { return Ok(None) };
        let mut bytes = Vec::with_capacity(block.records.len());
        for (_, json) in block.records() {
            self.renderer.render(&Record::parse_json(json)?, &mut bytes);
        }
        Ok(Some(bytes.into()))
    }
}

/// The same as a stream, which ends with the first error; that error is logged here, as nobody sees it later.
pub fn stream(
    reader: &Reader,
    view: &View,
    range: LineRange,
    zone: Tz,
) -> impl Stream<Item = Result<Bytes, ReadError>> + Send + use<> {
    let file = LogFile::open(reader, view, range, zone);
    let instance = view.attempt.instance.clone();
    futures::stream::try_unfold(file, move |mut file| {
        let instance = instance.clone();
        async move {
            let bytes = file.next().await;
            if let Err(error) = &bytes {
                tracing::error!(%instance, error = chain(error), "a download broke off");
            }
            Ok(bytes?.map(|bytes| (bytes, file)))
        }
    })
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |error: &&'_ dyn Error| (*error).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
