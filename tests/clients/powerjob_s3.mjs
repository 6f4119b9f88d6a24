// What PowerJob asks of its MinIO, by the AWS SDK for JavaScript: bodies as a buffer and as a stream, which it sends in
// chunks with a checksum behind them.
//
//   node powerjob_s3.mjs ENDPOINT BUCKET ACCESS_KEY SECRET_KEY

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(`${process.env.NODE_PATH}/../`));
const { S3Client, ...calls } = require("@aws-sdk/client-s3");
const { version } = require("@aws-sdk/client-s3/package.json");

const [endpoint, Bucket, accessKeyId, secretAccessKey] = process.argv.slice(2);
const client = (secret = secretAccessKey) =>
  new S3Client({
    endpoint, region: "us-east-1", forcePathStyle: true, maxAttempts: 1,
    credentials: { accessKeyId, secretAccessKey: secret },
  });
const s3 = client();
const send = (name, input) => s3.send(new calls[`${name}Command`]({ Bucket, ...input }));
const md5 = (bytes) => `"${createHash("md5").update(bytes).digest("hex")}"`;
const id = ((1795341600000n - 1555776000000n) << 22n) + 2000n;

await send("GetBucketAcl");
await send("CreateBucket");
await send("PutBucketPolicy", { Policy: "{}" });
await assert.rejects(send("HeadObject", { Key: `log/oms-${id}.log` }), { name: "NotFound" });
await assert.rejects(send("GetObject", { Key: `log/oms-${id}.log` }), { name: "NoSuchKey" });

const lines = Array.from({ length: 20000 }, (_, n) => `2026-11-22 18:00:00.${String(n % 1000).padStart(3, "0")} [w] WARN ${n}\n`);
const bodies = [[`log/oms-${id}.log`, Buffer.from(lines.join(""))], ["container/by-js.jar", Buffer.alloc(700000, 7)]];
for (const [Key, content] of bodies) {
  const streamed = { Body: Readable.from([content.subarray(0, 70000), content.subarray(70000)]), ContentLength: content.length };
  for (const body of [{ Body: content }, streamed]) {
    assert.equal((await send("PutObject", { Key, ...body })).ETag, md5(content), Key);
    const head = await send("HeadObject", { Key });
    assert.deepEqual([head.ETag, head.ContentLength], [md5(content), content.length]);
    const got = await send("GetObject", { Key });
    assert.ok(content.equals(await got.Body.transformToByteArray()), Key);
  }
}
await assert.rejects(client("wrong").send(new calls.GetObjectCommand({ Bucket, Key: bodies[0][0] })), {
  name: "SignatureDoesNotMatch",
});
console.log(`@aws-sdk/client-s3 ${version}: as PowerJob expects`);
