//! A request's body, within bounds: of one request, and of all that are under way.
//!
//! Bytes are counted before and after decompression, and room for them is taken from one budget as
//! they arrive; a body that finds no room is refused at once (I7). A decompressor may not ask for a
//! window larger than a body may be.

use std::io::{self, Write};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use futures::StreamExt;
use serde::de::DeserializeOwned;

use super::{Problem, Shared};
use crate::clock::Clock;
use crate::ingest::{Budget, Room};

/// A client that sends nothing for so long has gone.
const STALL: Duration = Duration::from_secs(30);

/// The same while what it sends is thrown away.
const DRAIN: Duration = Duration::from_secs(2);

/// Of a body that is too large, so much more is read and thrown away: a client that is still
/// sending when the connection closes would not see the answer.
const MAX_DRAINED: u64 = 64 * 1024 * 1024;

/// Of what a client says it will send, so much address space is set aside at once; memory is taken as bytes come.
const MAX_RESERVED: u64 = 1024 * 1024;

/// Longest JSON body of a call that carries no records; labels take 2 KiB.
const MAX_JSON_BYTES: u64 = 64 * 1024;

/// A whole body; its room is given back when it is dropped.
pub struct Received {
    pub bytes: Vec<u8>,
    _room: Room,
}

/// A body after decompression, at most [`HttpSettings::max_body_bytes`](super::HttpSettings) long.
pub async fn read(shared: &Shared, headers: &HeaderMap, body: Body) -> Result<Received, Problem> {
    read_within(shared, headers, body, shared.api.settings.max_body_bytes).await
}

/// A small JSON document; no body at all stands for an empty object.
pub async fn read_json<T: DeserializeOwned>(shared: &Shared, headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    let received = read_within(shared, headers, body, MAX_JSON_BYTES).await?;
    let json = if received.bytes.trim_ascii().is_empty() { b"{}" } else { received.bytes.as_slice() };
    // Derived code takes an array for a struct, whose members nobody would know the order of.
    if !json.trim_ascii_start().starts_with(b"{") {
        return Err(Problem::bad_request("the body must be a JSON object"));
    }
    serde_json::from_slice(json).map_err(|error| Problem::bad_request(format!("the body is not as expected: {error}")))
}

async fn read_within(shared: &Shared, headers: &HeaderMap, body: Body, limit: u64) -> Result<Received, Problem> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let clock = &shared.api.clock;
    let mut body = body.into_data_stream();
    let result = match announced {
        Some(announced) if announced > limit => Err(too_large(limit)),
        _ => {
            let mut sink = Sink::new(limit, shared.budget.clone());
            sink.bytes.reserve(announced.map_or(0, |announced| announced.min(MAX_RESERVED) as usize));
            let mut decoder = Decoder::new(headers, sink)?;
            fill(clock, &mut body, &mut decoder, limit).await.and_then(|()| decoder.finish())
        }
    };
    // Who waits to be asked for the body has sent none of it.
    if result.is_err() && !headers.contains_key(header::EXPECT) {
        drain(clock, body).await;
    }
    result
}

async fn fill(clock: &Clock, body: &mut BodyDataStream, decoder: &mut Decoder, limit: u64) -> Result<(), Problem> {
    let mut received = 0;
    while let Some(piece) = next(clock, body, STALL).await? {
        received += piece.len() as u64;
        if received > limit {
            return Err(too_large(limit));
        }
        decoder.write(&piece)?;
    }
    Ok(())
}

async fn next(clock: &Clock, body: &mut BodyDataStream, patience: Duration) -> Result<Option<Bytes>, Problem> {
    tokio::select! {
        piece = body.next() => match piece {
            None => Ok(None),
            Some(Ok(piece)) => Ok(Some(piece)),
            Some(Err(error)) => Err(Problem::bad_request("the body broke off before its end").caused_by(error)),
        },
        () = clock.sleep(patience) => {
            let detail = format!("nothing more of the body came for {} s", patience.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "stalled", "The body stalled", detail))
        }
    }
}

async fn drain(clock: &Clock, mut body: BodyDataStream) {
    let mut drained = 0;
    while let Ok(Some(piece)) = next(clock, &mut body, DRAIN).await {
        drained += piece.len() as u64;
        if drained > MAX_DRAINED {
            break;
        }
    }
}

fn too_large(limit: u64) -> Problem {
    let detail = format!("the body may have at most {limit} bytes, before and after decompression; send it in pieces");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", detail).with("limit", limit)
}

/// Takes decoded bytes as long as there is room.
struct Sink {
    bytes: Vec<u8>,
    limit: u64,
    budget: Budget,
    room: Room,
    refused: Option<Refused>,
}

#[derive(Debug, Clone, Copy)]
enum Refused {
    TooLarge,
    NoRoom,
}

impl Sink {
    fn new(limit: u64, budget: Budget) -> Self {
        Self { bytes: Vec::new(), limit, budget, room: Room::default(), refused: None }
    }

    fn problem(&self) -> Option<Problem> {
        Some(match self.refused? {
            Refused::TooLarge => too_large(self.limit),
            Refused::NoRoom => {
                let detail = "the daemon is taking in as much as it has memory for; try again";
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Too much at once", detail).retry_after(1)
            }
        })
    }
}

impl Write for Sink {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let wanted = self.bytes.len() + piece.len();
        if wanted as u64 > self.limit {
            self.refused = Some(Refused::TooLarge);
        } else if self.budget.grow(&mut self.room, wanted as u64).is_err() {
            self.refused = Some(Refused::NoRoom);
        }
        if self.refused.is_some() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// By `Content-Encoding`.
enum Decoder {
    Plain(Sink),
    Gzip(Box<flate2::write::MultiGzDecoder<Sink>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Sink>>),
}

impl Decoder {
    fn new(headers: &HeaderMap, sink: Sink) -> Result<Self, Problem> {
        let encoding = headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase());
        match encoding.as_deref().map(<[u8]>::trim_ascii) {
            None | Some(b"" | b"identity") => Ok(Self::Plain(sink)),
            Some(b"gzip" | b"x-gzip") => Ok(Self::Gzip(Box::new(flate2::write::MultiGzDecoder::new(sink)))),
            Some(b"zstd") => {
                // 8 MiB is what every zstd level below "ultra" needs.
                let window_log = sink.limit.next_power_of_two().ilog2().clamp(23, 31);
                let mut decoder = zstd::stream::write::Decoder::new(sink).map_err(Problem::internal)?;
                decoder.window_log_max(window_log).map_err(Problem::internal)?;
                Ok(Self::Zstd(Box::new(decoder)))
            }
            Some(other) => {
                let detail = format!("Content-Encoding {}: send gzip, zstd or none", String::from_utf8_lossy(other));
                Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported", "Unsupported body", detail))
            }
        }
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), Problem> {
        let result = match self {
            Self::Plain(sink) => sink.write_all(piece),
            Self::Gzip(decoder) => decoder.write_all(piece),
            Self::Zstd(decoder) => decoder.write_all(piece),
        };
        result.map_err(|error| self.problem(&error))
    }

    fn finish(mut self) -> Result<Received, Problem> {
        let result = match &mut self {
            Self::Plain(_) => Ok(()),
            Self::Gzip(decoder) => decoder.try_finish(),
            Self::Zstd(decoder) => decoder.flush().and_then(|()| decoder.do_finish()),
        };
        result.map_err(|error| self.problem(&error))?;
        let sink = match self {
            Self::Plain(sink) => sink,
            Self::Gzip(decoder) => decoder.finish().map_err(Problem::internal)?,
            Self::Zstd(decoder) => decoder.into_inner(),
        };
        Ok(Received { bytes: sink.bytes, _room: sink.room })
    }

    fn problem(&self, error: &io::Error) -> Problem {
        let sink = match self {
            Self::Plain(sink) => sink,
            Self::Gzip(decoder) => decoder.get_ref(),
            Self::Zstd(decoder) => decoder.get_ref(),
        };
        sink.problem().unwrap_or_else(|| Problem::bad_request(format!("the body cannot be decompressed: {error}")))
    }
}
