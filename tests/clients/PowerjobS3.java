// What PowerJob's MinioOssService asks of its MinIO, by the SDK that it uses: AWS SDK for Java 1.12, which signs each
// chunk of a body over http.
//
//   java -cp JARS PowerjobS3.java ENDPOINT BUCKET ACCESS_KEY SECRET_KEY

import com.amazonaws.ClientConfiguration;
import com.amazonaws.SDKGlobalConfiguration;
import com.amazonaws.auth.AWSStaticCredentialsProvider;
import com.amazonaws.auth.BasicAWSCredentials;
import com.amazonaws.client.builder.AwsClientBuilder.EndpointConfiguration;
import com.amazonaws.services.s3.AmazonS3;
import com.amazonaws.services.s3.AmazonS3Client;
import com.amazonaws.services.s3.model.AmazonS3Exception;
import com.amazonaws.services.s3.model.CreateBucketRequest;
import com.amazonaws.services.s3.model.GetObjectRequest;
import com.amazonaws.services.s3.model.ObjectMetadata;
import com.amazonaws.services.s3.model.PutObjectRequest;
import com.amazonaws.util.VersionInfoUtils;
import java.io.File;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.security.MessageDigest;
import java.util.Arrays;
import java.util.HexFormat;

public class PowerjobS3 {
    static String endpoint, bucket;

    static AmazonS3 client(String key, String secret) {
        return AmazonS3Client.builder()
            .withCredentials(new AWSStaticCredentialsProvider(new BasicAWSCredentials(key, secret)))
            .withEndpointConfiguration(new EndpointConfiguration(endpoint, "us-east-1"))
            .withClientConfiguration(new ClientConfiguration().withMaxErrorRetry(0))
            .withPathStyleAccessEnabled(true).build();
    }

    static void check(boolean is, String what) {
        if (!is) throw new AssertionError(what);
    }

    static void refused(String code, Runnable call) {
        try {
            call.run();
        } catch (AmazonS3Exception error) {
            check(code.equals(error.getErrorCode()), error.getErrorCode() + " instead of " + code);
            return;
        }
        throw new AssertionError(code + " was expected");
    }

    static File file(byte[] content) throws Exception {
        File file = File.createTempFile("powerjob", null);
        file.deleteOnExit();
        Files.write(file.toPath(), content);
        return file;
    }

    public static void main(String[] args) throws Exception {
        endpoint = args[0];
        bucket = args[1];
        AmazonS3 s3 = client(args[2], args[3]);
        check(s3.doesBucketExistV2(bucket), "the bucket is there");
        s3.createBucket(new CreateBucketRequest(bucket));
        s3.setBucketPolicy(bucket, "{\"Version\":\"2012-10-17\",\"Statement\":[]}");

        long id = ((1795341600000L - 1555776000000L) << 22) + 3000;
        StringBuilder lines = new StringBuilder();
        for (int n = 0; n < 20000; n++) lines.append("2026-11-22 18:00:00.000 [10.0.0.1:27777] INFO line ").append(n).append('\n');
        byte[] jar = new byte[700_000];
        Arrays.fill(jar, (byte) 7);
        Object[][] files = {
            {"log/oms-" + id + ".log", lines.append("任务完成\n").toString().getBytes(StandardCharsets.UTF_8)},
            {"container/by-java.jar", jar},
        };
        for (Object[] named : files) {
            String key = (String) named[0];
            byte[] content = (byte[]) named[1];
            check(!s3.doesObjectExist(bucket, key), key + " is not there yet");
            String md5 = HexFormat.of().formatHex(MessageDigest.getInstance("MD5").digest(content));
            for (int again = 0; again < 2; again++) {
                // As PowerJob stores a file.
                String etag = s3.putObject(new PutObjectRequest(bucket, key, file(content))).getETag();
                check(md5.equals(etag), key + ": " + etag);
            }
            // As PowerJob looks for one, and fetches it.
            ObjectMetadata found = s3.getObjectMetadata(bucket, key);
            check(md5.equals(found.getETag()) && found.getContentLength() == content.length, key + ": " + found.getETag());
            File target = File.createTempFile("powerjob", null);
            target.deleteOnExit();
            s3.getObject(new GetObjectRequest(bucket, key), target);
            check(Arrays.equals(Files.readAllBytes(target.toPath()), content), key + " came back otherwise");
        }
        String log = (String) files[0][0];
        refused("SignatureDoesNotMatch", () -> client(args[2], "wrong").getObject(bucket, log));
        refused("InvalidAccessKeyId", () -> client("wrong", args[3]).getObject(bucket, log));
        refused("NoSuchKey", () -> s3.getObject(bucket, "log/oms-" + (id + 1) + ".log"));
        System.out.println("AWS SDK for Java " + VersionInfoUtils.getVersion() + ": as PowerJob expects");
    }
}
