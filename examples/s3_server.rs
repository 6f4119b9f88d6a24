//! An S3 server over a folder on loopback, for measurements on a machine without one.
//!
//! ```text
//! cargo run --release --example s3_server -- FOLDER PORT    # keys "bench" / "bench-secret"; buckets are subfolders
//! ```

use std::io::SeekFrom;
use std::path::PathBuf;
use std::process::ExitCode;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput, CompleteMultipartUploadOutput,
    CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput,
    DeleteObjectsOutput, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput, ListObjectsV2Input,
    ListObjectsV2Output, PutObjectInput, PutObjectOutput, Range, StreamingBlob, UploadPartInput, UploadPartOutput,
};
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

/// Bytes of a read. `s3s_fs` reads 4 KiB at a time, each by a thread of its own: 175 MB/s of both cores, which
/// would be the limit of everything that is measured.
const READ_BYTES: usize = 256 * 1024;

/// `s3s_fs` with larger reads.
struct Files {
    files: s3s_fs::FileSystem,
    folder: PathBuf,
}

macro_rules! passed_on {
    ($($method:ident: $input:ty => $output:ty,)*) => {
        #[async_trait::async_trait]
        impl S3 for Files {
            $(async fn $method(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                self.files.$method(request).await
            })*

            async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
                let path = self.folder.join(&request.input.bucket).join(&request.input.key);
                let range = request.input.range;
                let mut answer = self.files.get_object(request).await?;
                let length = answer.output.content_length.unwrap_or_default().unsigned_abs();
                let mut file = tokio::fs::File::open(path).await.map_err(|error| s3_error!(error, NoSuchKey))?;
                let start = match range {
                    None => SeekFrom::Start(0),
                    Some(Range::Int { first, .. }) => SeekFrom::Start(first),
                    Some(Range::Suffix { length }) => SeekFrom::End(-length.cast_signed()),
                };
                file.seek(start).await.map_err(|error| s3_error!(error, InternalError))?;
                let capacity = READ_BYTES.min(length as usize);
                let body = ReaderStream::with_capacity(file.take(length), capacity.max(1));
                answer.output.body = Some(StreamingBlob::wrap(body));
                Ok(answer)
            }
        }
    };
}

passed_on! {
    abort_multipart_upload: AbortMultipartUploadInput => AbortMultipartUploadOutput,
    complete_multipart_upload: CompleteMultipartUploadInput => CompleteMultipartUploadOutput,
    create_multipart_upload: CreateMultipartUploadInput => CreateMultipartUploadOutput,
    delete_object: DeleteObjectInput => DeleteObjectOutput,
    delete_objects: DeleteObjectsInput => DeleteObjectsOutput,
    head_object: HeadObjectInput => HeadObjectOutput,
    list_objects_v2: ListObjectsV2Input => ListObjectsV2Output,
    put_object: PutObjectInput => PutObjectOutput,
    upload_part: UploadPartInput => UploadPartOutput,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, port] = arguments.as_slice() else {
        return ExitCode::from(2);
    };
    match serve(folder, port).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

async fn serve(folder: &str, port: &str) -> Result<(), Box<dyn std::error::Error>> {
    let files = s3s_fs::FileSystem::new(folder).map_err(|error| format!("open {folder}: {error:?}"))?;
    let mut service = S3ServiceBuilder::new(Files { files, folder: folder.into() });
    service.set_auth(SimpleAuth::from_single("bench", "bench-secret"));
    let service = service.build();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port.parse()?)).await?;
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (connection, _) = listener.accept().await?;
        while connections.try_join_next().is_some() {}
        // Answers go out in two writes; Nagle's algorithm would hold the second back.
        connection.set_nodelay(true)?;
        let service = service.clone();
        connections.spawn(async move {
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(connection), service).await;
        });
    }
}
