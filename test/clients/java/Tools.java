import java.io.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.*;
import org.apache.kafka.common.utils.Exit;

/**
 * Kafka's own command-line tools, each run by its main class with its output captured and checked. They share this JVM
 * because starting one costs more than the work: their System.exit is caught by Kafka's own Exit hook.
 */
public final class Tools {
    static String broker;

    /** What a tool printed and the status it ended with. */
    record Ran(int status, String out) {
        Ran must(String... parts) {
            for (String p : parts) {
                if (!out.contains(p)) {
                    throw new AssertionError("status " + status + ", output lacks \"" + p + "\": " + out);
                }
            }
            return this;
        }

        Ran ok() {
            Proof.equal(status + (status == 0 ? "" : " " + out), "0", "status");
            return this;
        }

        /** The one line that begins with p, its columns split at blanks. */
        List<String> line(String p) {
            for (String l : out.split("\n")) {
                if (l.startsWith(p)) {
                    return Arrays.asList(l.trim().split("\\s+"));
                }
            }
            throw new AssertionError("no line begins with " + p + ": " + out);
        }
    }

    static final class Ended extends RuntimeException {
    }

    static Ran run(String main, String stdin, String... args) throws Exception {
        List<String> all = new ArrayList<>(List.of(args));
        ByteArrayOutputStream buf = new ByteArrayOutputStream();
        PrintStream out = new PrintStream(buf, true, StandardCharsets.UTF_8), oldOut = System.out, oldErr = System.err;
        InputStream oldIn = System.in;
        // A tool may catch what the hook throws and call exit again: the first status, and the output until then, count.
        int[] first = {-1, 0};
        try {
            System.setOut(out);
            System.setErr(out);
            System.setIn(new ByteArrayInputStream(stdin.getBytes(StandardCharsets.UTF_8)));
            Exit.setExitProcedure((s, m) -> {
                out.flush();
                if (first[0] < 0) {
                    first[0] = s;
                    first[1] = buf.size();
                }
                throw new Ended();
            });
            var m = Class.forName(main).getMethod("main", String[].class);
            if (main.startsWith("kafka.")) {
                scalaOut(out, () -> m.invoke(null, (Object) all.toArray(new String[0])));
            } else {
                m.invoke(null, (Object) all.toArray(new String[0]));
            }
        } catch (java.lang.reflect.InvocationTargetException e) {
            if (!(e.getCause() instanceof Ended) && first[0] < 0) {
                throw new AssertionError(main + " threw " + e.getCause() + " after " + buf.toString(StandardCharsets.UTF_8));
            }
        } finally {
            Exit.resetExitProcedure();
            System.setOut(oldOut);
            System.setErr(oldErr);
            System.setIn(oldIn);
        }
        return first[0] < 0 ? new Ran(0, buf.toString(StandardCharsets.UTF_8)) : new Ran(first[0], new String(buf.toByteArray(), 0, first[1], StandardCharsets.UTF_8));
    }

    interface Body {
        void run() throws Exception;
    }

    /** Scala's println keeps the stream it found first; Console.withOut is its own way to redirect. */
    static void scalaOut(PrintStream out, Body body) throws Exception {
        Exception[] err = new Exception[1];
        scala.Console.withOut(out, () -> {
            try {
                body.run();
            } catch (Exception e) {
                err[0] = e;
            }
            return null;
        });
        if (err[0] != null) {
            throw err[0];
        }
    }

    static final String T = "org.apache.kafka.tools.";

    static Ran topics(String... a) throws Exception {
        return run(T + "TopicCommand", "", with(a));
    }

    static Ran groups(String... a) throws Exception {
        return run(T + "consumer.group.ConsumerGroupCommand", "", with(a));
    }

    static Ran configs(String... a) throws Exception {
        return run("kafka.admin.ConfigCommand", "", with(a));
    }

    static String[] with(String... a) {
        List<String> l = new ArrayList<>(List.of("--bootstrap-server", broker));
        l.addAll(List.of(a));
        return l.toArray(new String[0]);
    }

    public static void main(String[] args) throws Exception {
        broker = args[0];
        Proof.client = "tools";
        String t = Proof.name("t"), g = Proof.name("g");
        Proof.that("kafka-topics", () -> kafkaTopics(t));
        Proof.that("kafka-console-producer", () -> produce(t));
        Proof.that("kafka-console-consumer", () -> consume(t, g));
        Proof.that("kafka-get-offsets", () -> offsets(t));
        Proof.that("kafka-consumer-groups", () -> consumerGroups(t, g));
        Proof.that("kafka-configs", () -> kafkaConfigs(t));
        Proof.that("kafka-producer-perf-test", () -> perf(t));
        Proof.that("kafka-consumer-perf-test", () -> consumerPerf(t));
        Proof.that("kafka-log-dirs", () -> logDirs(t));
        Proof.that("kafka-delete-records", () -> deleteRecords(t));
        Proof.that("kafka-broker-api-versions", Tools::apiVersions);
        Proof.that("kafka-cluster", Tools::cluster);
        Proof.that("kafka-topics-delete", () -> delete(t));
        Proof.done();
    }

    static String kafkaTopics(String t) throws Exception {
        topics("--create", "--topic", t, "--partitions", "3", "--replication-factor", "" + Proof.FACTOR, "--config", "retention.ms=3600000").ok().must("Created topic " + t);
        Proof.equal(topics("--create", "--topic", t).must("already exists").status, 1, "status of a second create");
        topics("--create", "--topic", t, "--if-not-exists").ok();
        String d = topics("--describe", "--topic", t).ok().must("PartitionCount: 3", "ReplicationFactor: " + Proof.FACTOR, "retention.ms=3600000", "TopicId: ").out;
        for (int i = 0; i < 3; i++) {
            if (!d.matches("(?s).*Topic: " + t + "\tPartition: " + i + "\tLeader: (\\d+)\tReplicas: \\1(,\\d+){" + (Proof.FACTOR - 1) + "}\tIsr: \\d+(,\\d+){" + (Proof.FACTOR - 1) + "}\t.*")) {
                throw new AssertionError("partition " + i + ": " + d);
            }
        }
        topics("--list").ok().must(t);
        topics("--alter", "--topic", t, "--partitions", "4").ok();
        Proof.await(() -> {
            try {
                return topics("--describe", "--topic", t).out.contains("PartitionCount: 4");
            } catch (Exception e) {
                return false;
            }
        }, () -> "not 4 partitions");
        Proof.equal(topics("--alter", "--topic", t, "--partitions", "2").status, 1, "status of shrinking");
        Proof.equal(topics("--describe", "--unavailable-partitions").ok().out.contains(t), false, "unavailable");
        Proof.equal(topics("--create", "--topic", "a/b").must("is invalid").status, 1, "status of a bad name");
        return "create, exists, describe (ids, leaders, isr, configs), list, grow, shrink refused, bad name refused";
    }

    static String produce(String t) throws Exception {
        StringBuilder in = new StringBuilder();
        for (int i = 0; i < 100; i++) {
            in.append("k").append(i % 5).append("\tvalue ").append(i).append("\n");
        }
        for (String z : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            var r = run(T + "ConsoleProducer", in.toString(), with("--topic", t, "--compression-codec", z, "--property", "parse.key=true", "--request-required-acks", "all"));
            Proof.equal(r.out.contains("ERROR") || r.out.contains("Exception") ? r.out : "", "", z);
        }
        return "100 keyed lines with each of 5 codecs";
    }

    static String consume(String t, String g) throws Exception {
        var r = run(T + "consumer.ConsoleConsumer", "", with("--topic", t, "--from-beginning", "--max-messages", "500", "--timeout-ms", "10000", "--group", g,
            "--property", "print.key=true", "--property", "print.offset=true", "--property", "print.partition=true", "--property", "print.timestamp=true"));
        r.must("Processed a total of 500 messages");
        Map<String, Integer> last = new HashMap<>();
        int n = 0;
        for (String l : r.out.split("\n")) {
            if (!l.startsWith("CreateTime:")) {
                continue;
            }
            String[] f = l.split("\t");
            int v = Integer.parseInt(f[f.length - 1].substring("value ".length()));
            String key = f[f.length - 2];
            Proof.equal(key, "k" + v % 5, "key of value " + v);
            Integer before = last.put(key, v);
            // Each key's values rise within a round of 100 and start again with the next codec.
            if (before != null && v != before + 5 && v >= 5) {
                throw new AssertionError(key + ": " + v + " after " + before);
            }
            n++;
        }
        Proof.equal(n, 500, "lines");
        var one = run(T + "consumer.ConsoleConsumer", "", with("--topic", t, "--partition", "0", "--offset", "earliest", "--max-messages", "1", "--timeout-ms", "10000", "--property", "print.offset=true"));
        one.must("Offset:0", "Processed a total of 1 messages");
        return "500 records in order per key with offset, partition and time; one from offset earliest";
    }

    static String offsets(String t) throws Exception {
        var r = run(T + "GetOffsetShell", "", with("--topic", t));
        long sum = 0;
        for (int i = 0; i < 4; i++) {
            sum += Long.parseLong(r.line(t + ":" + i + ":").get(0).split(":")[2]);
        }
        Proof.equal(sum, 500L, "sum of the ends");
        run(T + "GetOffsetShell", "", with("--topic", t, "--time", "earliest")).must(t + ":0:0", t + ":3:0");
        run(T + "GetOffsetShell", "", with("--topic", t, "--time", "max-timestamp")).must(t + ":");
        return "ends sum to 500, earliest is 0 everywhere";
    }

    static String consumerGroups(String t, String g) throws Exception {
        groups("--list").ok().must(g);
        var d = groups("--describe", "--group", g).ok().must("LOG-END-OFFSET");
        long lag = 0, end = 0;
        for (String l : d.out.split("\n")) {
            String[] f = l.trim().split("\\s+");
            if (f.length > 6 && f[0].equals(g)) {
                // GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG ...
                end += Long.parseLong(f[4]);
                lag += Long.parseLong(f[5]);
            }
        }
        Proof.equal(end + " " + lag, "500 0", "ends and lag");
        groups("--describe", "--group", g, "--state").ok().must("Empty", g);
        groups("--reset-offsets", "--group", g, "--topic", t + ":0", "--to-offset", "1", "--execute").ok().must(g);
        var r = groups("--reset-offsets", "--group", g, "--topic", t, "--to-earliest", "--dry-run").ok();
        r.must(t);
        groups("--reset-offsets", "--group", g, "--topic", t, "--to-latest", "--execute").ok();
        groups("--delete-offsets", "--group", g, "--topic", t + ":1").ok().must("Successful");
        groups("--delete", "--group", g).ok().must("Deletion of requested consumer groups");
        Proof.equal(groups("--list").out.contains(g), false, "listed after deletion");
        groups("--describe", "--group", g).must("not found");
        return "list, describe with lag 0, state, reset, delete offsets, delete";
    }

    static String kafkaConfigs(String t) throws Exception {
        configs("--describe", "--entity-type", "topics", "--entity-name", t).ok().must("retention.ms=3600000", "DYNAMIC_TOPIC_CONFIG");
        configs("--alter", "--entity-type", "topics", "--entity-name", t, "--add-config", "segment.bytes=2000000,cleanup.policy=[delete,compact]").ok().must("Completed updating config for topic " + t);
        Proof.await(() -> {
            try {
                return configs("--describe", "--entity-type", "topics", "--entity-name", t).out.contains("segment.bytes=2000000");
            } catch (Exception e) {
                return false;
            }
        }, () -> "segment.bytes is not set");
        configs("--alter", "--entity-type", "topics", "--entity-name", t, "--delete-config", "segment.bytes,cleanup.policy").ok();
        configs("--describe", "--all", "--entity-type", "topics", "--entity-name", t).ok().must("min.insync.replicas=1", "compression.type=producer", "cleanup.policy=delete", "message.timestamp.type=CreateTime");
        var bad = configs("--alter", "--entity-type", "topics", "--entity-name", t, "--add-config", "no.such.key=1");
        Proof.equal(bad.status, 1, "status of an unknown key");
        configs("--describe", "--all", "--entity-type", "brokers", "--entity-name", brokerId()).ok().must("log.segment.bytes=1073741824", "num.partitions=1", "auto.create.topics.enable=true", "STATIC_BROKER_CONFIG");
        configs("--alter", "--entity-type", "brokers", "--entity-name", brokerId(), "--add-config", "log.cleaner.threads=2").ok();
        configs("--describe", "--entity-type", "brokers", "--entity-name", brokerId()).ok().must("log.cleaner.threads=2", "DYNAMIC_BROKER_CONFIG");
        configs("--alter", "--entity-type", "brokers", "--entity-name", brokerId(), "--delete-config", "log.cleaner.threads").ok();
        return "topic and broker: describe, all with defaults, add a list value, delete, unknown key refused";
    }

    static String id;

    static String brokerId() throws Exception {
        if (id == null) {
            try (var a = org.apache.kafka.clients.admin.Admin.create(Map.of("bootstrap.servers", broker))) {
                id = "" + a.describeCluster().nodes().get().iterator().next().id();
            }
        }
        return id;
    }

    static String perf(String t) throws Exception {
        var r = run(T + "ProducerPerformance", "", "--topic", t, "--num-records", "50000", "--record-size", "200", "--throughput", "-1", "--bootstrap-server", broker,
            "--command-property", "acks=all", "--command-property", "compression.type=lz4").must("50000 records sent");
        return r.line("50000 records sent").subList(0, 10).toString();
    }

    static String consumerPerf(String t) throws Exception {
        var r = run(T + "ConsumerPerformance", "", with("--topic", t, "--num-records", "50000", "--timeout", "20000"));
        String[] f = r.out.trim().split("\n")[r.out.trim().split("\n").length - 1].split(", ");
        Proof.equal(Long.parseLong(f[4].trim()) >= 50000, true, "consumed: " + r.out);
        return f[4] + " records, " + f[3] + " MB/s";
    }

    static String logDirs(String t) throws Exception {
        var r = run(T + "LogDirsCommand", "", with("--describe", "--topic-list", t)).ok().must("\"partition\":\"" + t + "-0\"", "\"partition\":\"" + t + "-3\"", "\"error\":null", "\"offsetLag\":0", "\"isFuture\":false");
        var m = java.util.regex.Pattern.compile("\"size\":(\\d+)").matcher(r.out);
        long sum = 0;
        while (m.find()) {
            sum += Long.parseLong(m.group(1));
        }
        Proof.equal(sum > 100000, true, "sizes sum to " + sum);
        return "4 partitions, " + sum + " bytes";
    }

    static String deleteRecords(String t) throws Exception {
        Path f = Files.createTempFile("del", ".json");
        Files.writeString(f, "{\"version\":1,\"partitions\":[{\"topic\":\"" + t + "\",\"partition\":0,\"offset\":-1}]}");
        run(T + "DeleteRecordsCommand", "", with("--offset-json-file", f.toString())).must("partition: " + t + "-0\tlow_watermark: ");
        Files.delete(f);
        var e = run(T + "GetOffsetShell", "", with("--topic-partitions", t + ":0", "--time", "earliest")).line(t);
        var l = run(T + "GetOffsetShell", "", with("--topic-partitions", t + ":0", "--time", "latest")).line(t);
        Proof.equal(e, l, "earliest after deleting all");
        return "all of partition 0, earliest is now " + e.get(0).split(":")[2];
    }

    static String apiVersions() throws Exception {
        var r = run(T + "BrokerApiVersionsCommand", "", with()).must("Produce(0): 0 to 13", "Fetch(1): 4 to 18", "Metadata(3): 0 to 13", "ApiVersions(18): 0 to ");
        return r.out.lines().filter(l -> l.contains("usable")).count() + " APIs usable by the newest client";
    }

    static String cluster() throws Exception {
        run(T + "ClusterTool", "", "cluster-id", "--bootstrap-server", broker).must("Cluster ID: ");
        return "prints the cluster id";
    }

    static String delete(String t) throws Exception {
        topics("--delete", "--topic", t).ok();
        Proof.await(() -> {
            try {
                return !topics("--list").out.contains(t);
            } catch (Exception e) {
                return false;
            }
        }, () -> "still listed");
        Proof.equal(topics("--delete", "--topic", t).must("does not exist").status, 1, "status of a second delete");
        return "gone from the list; a second delete is an error";
    }
}
