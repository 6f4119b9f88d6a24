"""What PowerJob's MinioOssService asks of its MinIO, by boto3, and by hand as the AWS SDK for Java 1.12 does it over
http: a body in chunks, each with a signature of its own (STREAMING-AWS4-HMAC-SHA256-PAYLOAD).

    powerjob_s3.py ENDPOINT BUCKET ACCESS_KEY SECRET_KEY
"""

import base64
import datetime
import hashlib
import hmac
import http.client
import json
import sys
import urllib.parse

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT, BUCKET, ACCESS_KEY, SECRET_KEY = sys.argv[1:5]
EMPTY = hashlib.sha256(b"").hexdigest()
# Instance ids of 2026, which nothing else here uses.
ID = ((1795341600000 - 1555776000000) << 22) + 1000


def client(secret=SECRET_KEY, **config):
    return boto3.client(
        "s3", endpoint_url=ENDPOINT, region_name="us-east-1", aws_access_key_id=ACCESS_KEY, aws_secret_access_key=secret,
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 1}, **config),
    )


def refused(code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        found = error.response["Error"]["Code"]
        assert found == code, f"{found} instead of {code}"
        return
    raise AssertionError(f"{code} was expected of {call.__name__}")


def log(n):
    return f"log/oms-{ID + n}.log"


def body(lines):
    text = "".join(f"2026-11-22 18:00:{n % 60:02}.000 [10.0.0.1:27777] INFO line {n}\n" for n in range(lines))
    return text.encode() + "任务完成".encode("gbk") + b"\n"


def check_stored(s3, key, content):
    md5 = hashlib.md5(content).hexdigest()
    head = s3.head_object(Bucket=BUCKET, Key=key)
    assert (head["ContentLength"], head["ETag"]) == (len(content), f'"{md5}"'), head
    got = s3.get_object(Bucket=BUCKET, Key=key)
    assert got["ETag"] == f'"{md5}"' and got["Body"].read() == content, key


def with_boto3():
    s3 = client()
    assert s3.get_bucket_acl(Bucket=BUCKET)["Grants"][0]["Permission"] == "FULL_CONTROL"
    refused("NoSuchBucket", s3.get_bucket_acl, Bucket="another-bucket")
    s3.create_bucket(Bucket=BUCKET)
    refused("AccessDenied", s3.create_bucket, Bucket="another-bucket")
    policy = {"Version": "2012-10-17", "Statement": [{"Action": ["s3:GetObject"], "Effect": "Allow",
              "Principal": {"AWS": ["*"]}, "Resource": [f"arn:aws:s3:::{BUCKET}/*"]}]}
    s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))
    refused("404", s3.head_object, Bucket=BUCKET, Key=log(1))
    refused("NoSuchKey", s3.get_object, Bucket=BUCKET, Key=log(1))
    for key, content in [(log(1), body(5000)), ("container/app 1.jar", bytes(range(256)) * 5000)]:
        md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
        stored = s3.put_object(Bucket=BUCKET, Key=key, Body=content, ContentMD5=md5)
        assert stored["ETag"] == f'"{hashlib.md5(content).hexdigest()}"', stored
        check_stored(s3, key, content)
    wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    refused("BadDigest", s3.put_object, Bucket=BUCKET, Key=log(2), Body=b"x", ContentMD5=wrong)
    refused("NoSuchKey", s3.get_object, Bucket=BUCKET, Key=log(2))
    # The policy made nothing public, and another secret opens nothing.
    path = f"/{BUCKET}/{log(1)}"
    assert request("GET", path, {}, b"").status == 403
    refused("SignatureDoesNotMatch", client("wrong").get_object, Bucket=BUCKET, Key=log(1))
    for algorithm in ["CRC32", "SHA256"]:
        s3.put_object(Bucket=BUCKET, Key="container/sums", Body=b"checked", ChecksumAlgorithm=algorithm)
    refused("BadDigest", s3.put_object, Bucket=BUCKET, Key="container/sums", Body=b"x", ChecksumCRC32="AAAAAA==")
    check_stored(s3, "container/sums", b"checked")


def request(method, path, headers, content):
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(ENDPOINT).netloc, timeout=60)
    connection.request(method, path, body=content, headers=headers)
    answer = connection.getresponse()
    answer.content = answer.read()
    connection.close()
    return answer


def sign(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def put_in_chunks(key, content, chunk=128 * 1024, change=None, md5=None):
    """PUT as the AWS SDK for Java 1.12 sends it. `change` may alter the chunks after they were signed."""
    now = datetime.datetime.now(datetime.timezone.utc)
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    scope, path = f"{day}/us-east-1/s3/aws4_request", f"/{BUCKET}/{key}"
    headers = {
        "content-encoding": "aws-chunked",
        "content-md5": md5 or base64.b64encode(hashlib.md5(content).digest()).decode(),
        "content-type": "application/octet-stream",
        "host": urllib.parse.urlsplit(ENDPOINT).netloc,
        "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "x-amz-date": stamp,
        "x-amz-decoded-content-length": str(len(content)),
    }
    names = ";".join(sorted(headers))
    canonical = "\n".join(["PUT", path, "", *(f"{name}:{headers[name]}" for name in sorted(headers)), "", names,
                           headers["x-amz-content-sha256"]])
    secret = sign(sign(sign(sign(f"AWS4{SECRET_KEY}".encode(), day), "us-east-1"), "s3"), "aws4_request")
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    signature = sign(secret, f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}").hex()
    headers["authorization"] = (f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={names}, "
                                f"Signature={signature}")
    chunks = []
    for at in [*range(0, len(content), chunk), len(content)]:
        piece = content[at:at + chunk]
        text = "\n".join(["AWS4-HMAC-SHA256-PAYLOAD", stamp, scope, signature, EMPTY, hashlib.sha256(piece).hexdigest()])
        signature = sign(secret, text).hex()
        chunks.append((signature, piece))
    if change:
        chunks = change(chunks)
    sent = b"".join(f"{len(piece):x};chunk-signature={by}\r\n".encode() + piece + b"\r\n" for by, piece in chunks)
    return request("PUT", path, {**headers, "content-length": str(len(sent))}, sent)


def with_signed_chunks():
    s3, content = client(), body(20000)
    answer = put_in_chunks(log(3), content)
    assert answer.status == 200, answer.content
    assert answer.getheader("etag") == f'"{hashlib.md5(content).hexdigest()}"'
    check_stored(s3, log(3), content)
    assert put_in_chunks("container/empty.jar", b"").status == 200
    check_stored(s3, "container/empty.jar", b"")

    def one_byte(chunks):
        return [(by, b"X" + piece[1:]) if n == 1 else (by, piece) for n, (by, piece) in enumerate(chunks)]

    changed = {
        "a byte of the second chunk": one_byte,
        "the order": lambda chunks: [chunks[1], chunks[0], *chunks[2:]],
        "a signature": lambda chunks: [(by[::-1], piece) for by, piece in chunks],
        "a chunk is missing": lambda chunks: chunks[1:],
    }
    for what, change in changed.items():
        answer = put_in_chunks(log(4), content, change=change)
        assert answer.status in (400, 403), f"{what}: {answer.status} {answer.content}"
        refused("NoSuchKey", s3.get_object, Bucket=BUCKET, Key=log(4))
    wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    answer = put_in_chunks(log(4), content, md5=wrong)
    assert answer.status == 400 and b"BadDigest" in answer.content, answer.content
    refused("NoSuchKey", s3.get_object, Bucket=BUCKET, Key=log(4))


with_boto3()
with_signed_chunks()
print(f"boto3 {boto3.__version__} and signed chunks: as PowerJob expects")
