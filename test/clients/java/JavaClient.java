import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.*;

/** What the Java client of Apache Kafka sees of the broker. */
public final class JavaClient {
    static String broker;
    static Admin admin;

    static Map<String, Object> conf(Object... kv) {
        Map<String, Object> m = new HashMap<>();
        m.put("bootstrap.servers", broker);
        for (int i = 0; i < kv.length; i += 2) {
            m.put((String) kv[i], kv[i + 1]);
        }
        return m;
    }

    static String topic(String s, int parts, String... kv) throws Exception {
        Map<String, String> c = new HashMap<>();
        for (int i = 0; i < kv.length; i += 2) {
            c.put(kv[i], kv[i + 1]);
        }
        String t = Proof.name(s);
        admin.createTopics(List.of(new NewTopic(t, parts, Proof.FACTOR).configs(c))).all().get(20, TimeUnit.SECONDS);
        return t;
    }

    static List<RecordMetadata> send(Map<String, Object> conf, List<ProducerRecord<byte[], byte[]>> rs) throws Exception {
        try (var p = new KafkaProducer<>(conf, new ByteArraySerializer(), new ByteArraySerializer())) {
            List<Future<RecordMetadata>> fs = new ArrayList<>();
            for (var r : rs) {
                fs.add(p.send(r));
            }
            List<RecordMetadata> out = new ArrayList<>();
            for (var f : fs) {
                out.add(f.get(20, TimeUnit.SECONDS));
            }
            return out;
        }
    }

    static KafkaConsumer<byte[], byte[]> consumer(Object... kv) {
        Map<String, Object> m = conf("auto.offset.reset", "earliest", "enable.auto.commit", false, "fetch.max.wait.ms", 200, "heartbeat.interval.ms", 300, "session.timeout.ms", 10000);
        m.putAll(conf(kv));
        return new KafkaConsumer<>(m, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static List<ConsumerRecord<byte[], byte[]>> poll(KafkaConsumer<byte[], byte[]> c, int n) {
        List<ConsumerRecord<byte[], byte[]>> out = new ArrayList<>();
        long end = System.currentTimeMillis() + 15000;
        while (out.size() < n && System.currentTimeMillis() < end) {
            c.poll(Duration.ofMillis(200)).forEach(out::add);
        }
        if (out.size() < n) {
            throw new AssertionError("read " + out.size() + " of " + n + " records in 15 s");
        }
        return out;
    }

    static List<ConsumerRecord<byte[], byte[]>> read(String t, int n, Object... kv) {
        try (var c = consumer(kv)) {
            var tp = new TopicPartition(t, 0);
            c.assign(List.of(tp));
            c.seekToBeginning(List.of(tp));
            return poll(c, n);
        }
    }

    static byte[] b(String s) {
        return s.getBytes(StandardCharsets.UTF_8);
    }

    static byte[] text(int seed, int n) {
        Random r = new Random(seed);
        StringBuilder s = new StringBuilder();
        while (s.length() < n) {
            s.append("event ").append(r.nextInt(1000)).append(" of user-").append(r.nextInt(50)).append("; ");
        }
        return b(s.substring(0, n));
    }

    static Throwable error(Callable<?> fn) {
        try {
            fn.call();
        } catch (ExecutionException e) {
            return e.getCause();
        } catch (Exception e) {
            return e;
        }
        return null;
    }

    static void fails(String what, Class<?> want, Callable<?> fn) {
        Throwable t = error(fn);
        if (t == null || t.getClass() != want) {
            throw new AssertionError(what + ": got " + t + ", want " + want.getSimpleName());
        }
    }

    public static void main(String[] args) throws Exception {
        broker = args[0];
        Proof.client = "java";
        admin = Admin.create(conf());
        for (String z : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            Proof.that("codec-" + z, () -> codec(z));
        }
        Proof.that("nulls", JavaClient::nulls);
        Proof.that("big", JavaClient::big);
        Proof.that("timestamps", JavaClient::timestamps);
        Proof.that("offsets-by-time", JavaClient::byTime);
        Proof.that("seek", JavaClient::seek);
        Proof.that("idempotent", JavaClient::idempotent);
        for (var a : List.of(RangeAssignor.class, CooperativeStickyAssignor.class)) {
            Proof.that("group-" + a.getSimpleName(), () -> group(a.getName()));
        }
        Proof.that("static", JavaClient::statics);
        Proof.that("admin", JavaClient::admins);
        Proof.that("admin-groups", JavaClient::adminGroups);
        Proof.done();
    }

    static String codec(String z) throws Exception {
        String t = topic("codec-" + z, 1);
        List<ProducerRecord<byte[], byte[]>> rs = new ArrayList<>();
        for (int i = 0; i < 300; i++) {
            rs.add(new ProducerRecord<>(t, null, null, b("k" + i), text(i, 300), List.of(new RecordHeader("n", b("" + i)))));
        }
        send(conf("compression.type", z, "linger.ms", 5), rs);
        int i = 0;
        for (var r : read(t, 300)) {
            Proof.equal(r.offset(), (long) i, "offset");
            Proof.equal(new String(r.key()), "k" + i, "key");
            Proof.equal(Arrays.equals(r.value(), text(i, 300)), true, "value " + i + " equal");
            Proof.equal(new String(r.headers().lastHeader("n").value()), "" + i, "header");
            Proof.equal(r.leaderEpoch().isPresent(), true, "leader epoch present");
            i++;
        }
        return "300 records with keys and headers came back equal";
    }

    static String nulls() throws Exception {
        String t = topic("nulls", 1);
        send(conf(), List.of(new ProducerRecord<>(t, null, null), new ProducerRecord<>(t, new byte[0], null), new ProducerRecord<>(t, null, new byte[0]),
            new ProducerRecord<>(t, null, null, b("k"), null, List.of(new RecordHeader("null", null), new RecordHeader("empty", new byte[0])))));
        var got = read(t, 4);
        Proof.equal(got.get(0).key() == null && got.get(0).value() == null, true, "both null");
        Proof.equal(got.get(1).key() != null && got.get(1).value() == null, true, "empty key, null value");
        Proof.equal(got.get(2).key() == null && got.get(2).value() != null, true, "null key, empty value");
        Proof.equal(got.get(3).headers().lastHeader("null").value(), null, "null header");
        Proof.equal(got.get(3).headers().lastHeader("empty").value().length, 0, "empty header");
        return "null and empty keys, values and header values stay apart";
    }

    static String big() throws Exception {
        String t = topic("big", 1, "max.message.bytes", "2000000");
        byte[] v = new byte[1 << 20];
        new Random(5).nextBytes(v);
        send(conf("max.request.size", 2000000), List.of(new ProducerRecord<>(t, v)));
        Proof.equal(Arrays.equals(read(t, 1, "max.partition.fetch.bytes", 1000, "fetch.max.bytes", 1000).get(0).value(), v), true, "equal");
        String s = topic("big-default", 1);
        fails("default topic", RecordTooLargeException.class, () -> send(conf("max.request.size", 2000000), List.of(new ProducerRecord<>(s, v))));
        return "1 MiB passed with fetch limits of 1000 bytes; a default topic refused it";
    }

    static String timestamps() throws Exception {
        String t = topic("ts", 1), la = topic("ts-append", 1, "message.timestamp.type", "LogAppendTime");
        var m = send(conf(), List.of(new ProducerRecord<>(t, null, 1600000000123L, null, b("x")), new ProducerRecord<>(la, null, 1600000000123L, null, b("x"))));
        Proof.equal(m.get(0).timestamp(), 1600000000123L, "acknowledged create time");
        Proof.equal(m.get(1).timestamp() > System.currentTimeMillis() - 60000, true, "acknowledged append time is now");
        var a = read(t, 1).get(0);
        var b = read(la, 1).get(0);
        Proof.equal(a.timestamp() + " " + a.timestampType(), "1600000000123 CreateTime", "create time");
        Proof.equal(b.timestamp() + " " + b.timestampType(), m.get(1).timestamp() + " LogAppendTime", "append time");
        fails("two hours ahead", InvalidTimestampException.class, () -> send(conf("retries", 0, "enable.idempotence", false), List.of(new ProducerRecord<>(t, null, System.currentTimeMillis() + 7200000, null, b("x")))));
        return "create time, append time in the answer and in the log, two hours ahead refused";
    }

    static String byTime() throws Exception {
        String t = topic("bytime", 1);
        long base = System.currentTimeMillis() - 3600000;
        for (int i = 0; i < 10; i++) {
            send(conf(), List.of(new ProducerRecord<>(t, null, base + i * 1000, null, b("x"))));
        }
        var tp = new TopicPartition(t, 0);
        try (var c = consumer()) {
            long[][] q = {{base, 0}, {base + 1, 1}, {base + 5500, 6}, {base + 9000, 9}};
            for (long[] x : q) {
                Proof.equal(c.offsetsForTimes(Map.of(tp, x[0])).get(tp).offset(), x[1], "base+" + (x[0] - base));
            }
            Proof.equal(c.offsetsForTimes(Map.of(tp, base + 9001)).get(tp), null, "after the end");
            Proof.equal(c.beginningOffsets(List.of(tp)).get(tp) + "-" + c.endOffsets(List.of(tp)).get(tp), "0-10", "begin and end");
        }
        var r = admin.listOffsets(Map.of(tp, OffsetSpec.maxTimestamp())).partitionResult(tp).get(10, TimeUnit.SECONDS);
        Proof.equal(r.offset() + " " + r.timestamp(), "9 " + (base + 9000), "max timestamp");
        Proof.equal(admin.listOffsets(Map.of(tp, OffsetSpec.earliestLocal())).partitionResult(tp).get(10, TimeUnit.SECONDS).offset(), 0L, "earliest local");
        return "exact, between, last, after the end, begin, end, max timestamp, earliest local";
    }

    static String seek() throws Exception {
        String t = topic("seek", 1);
        List<ProducerRecord<byte[], byte[]>> rs = new ArrayList<>();
        for (int i = 0; i < 100; i++) {
            rs.add(new ProducerRecord<>(t, b("" + i)));
        }
        send(conf(), rs);
        var tp = new TopicPartition(t, 0);
        try (var c = consumer("max.poll.records", 1)) {
            c.assign(List.of(tp));
            for (long at : new long[] {60, 2, 99}) {
                c.seek(tp, at);
                Proof.equal(poll(c, 1).get(0).offset(), at, "seek");
            }
            c.seek(tp, 9999);
            Proof.equal(poll(c, 1).get(0).offset(), 0L, "out of range resets to earliest");
            c.seekToEnd(List.of(tp));
            Proof.equal(c.position(tp), 100L, "end position");
        }
        try (var c = consumer("auto.offset.reset", "none")) {
            c.assign(List.of(tp));
            c.seek(tp, 9999);
            fails("no reset", org.apache.kafka.clients.consumer.OffsetOutOfRangeException.class, () -> poll(c, 1));
        }
        return "60, 2, 99, end; out of range resets or is reported";
    }

    static String idempotent() throws Exception {
        String t = topic("idem", 1);
        List<ProducerRecord<byte[], byte[]>> rs = new ArrayList<>();
        for (int i = 0; i < 5000; i++) {
            rs.add(new ProducerRecord<>(t, b("" + i)));
        }
        send(conf("enable.idempotence", true, "batch.size", 600, "max.in.flight.requests.per.connection", 5), rs);
        int i = 0;
        for (var r : read(t, 5000)) {
            Proof.equal(new String(r.value()), "" + i++, "value");
        }
        var p = admin.describeProducers(List.of(new TopicPartition(t, 0))).all().get(10, TimeUnit.SECONDS).values().iterator().next().activeProducers();
        Proof.equal(p.size(), 1, "active producers");
        return "5000 small batches five in flight, in order, once each";
    }

    static final class Member extends Thread {
        final KafkaConsumer<byte[], byte[]> c;
        final Set<Integer> own = ConcurrentHashMap.newKeySet();
        final Map<String, Integer> seen = new ConcurrentHashMap<>();
        final String topic;
        volatile int joins;
        volatile boolean stop;
        volatile Throwable error;

        Member(String g, String t, Object... kv) {
            Map<String, Object> m = conf(kv);
            m.putAll(Map.of("group.id", g, "enable.auto.commit", true, "auto.commit.interval.ms", 100));
            List<Object> l = new ArrayList<>();
            m.forEach((k, v) -> l.addAll(List.of(k, v)));
            c = consumer(l.toArray());
            topic = t;
            setDaemon(true);
            start();
        }

        public void run() {
            try {
                c.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                    public void onPartitionsAssigned(Collection<TopicPartition> ps) {
                        joins++;
                        ps.forEach(p -> own.add(p.partition()));
                    }

                    public void onPartitionsRevoked(Collection<TopicPartition> ps) {
                        ps.forEach(p -> own.remove(p.partition()));
                    }
                });
                while (!stop) {
                    c.poll(Duration.ofMillis(100)).forEach(r -> seen.merge(new String(r.value()), 1, Integer::sum));
                }
            } catch (Throwable e) {
                error = e;
            } finally {
                c.close();
            }
        }

        void leave() throws Exception {
            stop = true;
            join(20000);
        }
    }

    static void fill(String t, int parts, int from, int n) throws Exception {
        List<ProducerRecord<byte[], byte[]>> rs = new ArrayList<>();
        for (int i = from; i < from + n; i++) {
            rs.add(new ProducerRecord<>(t, i % parts, null, b("" + i)));
        }
        send(conf(), rs);
    }

    static String group(String assignor) throws Exception {
        String t = topic("group-" + assignor.substring(assignor.lastIndexOf('.') + 1), 4), g = "g" + t;
        fill(t, 4, 0, 400);
        var a = new Member(g, t, "partition.assignment.strategy", assignor);
        Proof.await(() -> a.own.size() == 4 && a.seen.size() == 400, () -> a.own + " " + a.seen.size() + " records " + a.error);
        var b = new Member(g, t, "partition.assignment.strategy", assignor);
        Proof.await(() -> a.own.size() == 2 && b.own.size() == 2, () -> a.own + " and " + b.own);
        var d = admin.describeConsumerGroups(List.of(g)).all().get(10, TimeUnit.SECONDS).get(g);
        Proof.equal(d.groupState() + " " + d.members().size() + " " + d.type(), "Stable 2 Classic", "described");
        a.leave();
        Proof.await(() -> b.own.size() == 4, () -> "after a leave " + b.own);
        fill(t, 4, 400, 40);
        Proof.await(() -> b.seen.size() == 40, () -> b.seen.size() + " of 40 new records");
        b.leave();
        Proof.equal(b.seen.values().stream().allMatch(x -> x == 1), true, "each once");
        return "4, 2+2, 4 partitions; committed offsets carried over; described as Stable Classic";
    }

    static String statics() throws Exception {
        String t = topic("static", 2), g = "g" + t;
        var a = new Member(g, t, "group.instance.id", "one");
        var b = new Member(g, t, "group.instance.id", "two");
        Proof.await(() -> a.own.size() == 1 && b.own.size() == 1, () -> a.own + " and " + b.own);
        int before = b.joins;
        a.leave();
        var a2 = new Member(g, t, "group.instance.id", "one");
        Proof.await(() -> a2.own.size() == 1, () -> "did not come back " + a2.error);
        Proof.equal(b.joins, before, "joins of the other member");
        var twin = new Member(g, t, "group.instance.id", "one");
        Proof.await(() -> a2.error != null, () -> "a second holder of the instance id did not fence the first");
        Proof.equal(a2.error.getClass(), FencedInstanceIdException.class, "fenced");
        admin.removeMembersFromConsumerGroup(g, new RemoveMembersFromConsumerGroupOptions(List.of(new MemberToRemove("one")))).all().get(10, TimeUnit.SECONDS);
        Proof.await(() -> b.own.size() == 2 || b.joins > before, () -> "no rebalance after removal");
        twin.leave();
        b.leave();
        return "came back without a rebalance; a twin fenced it; removed by an admin";
    }

    static String admins() throws Exception {
        String t = topic("admin", 2, "retention.ms", "111111");
        fails("create twice", TopicExistsException.class, () -> topic("admin", 1));
        fails("bad name", InvalidTopicException.class, () -> admin.createTopics(List.of(new NewTopic("a/b", 1, (short) 1))).all().get());
        admin.createPartitions(Map.of(t, NewPartitions.increaseTo(4))).all().get();
        fails("shrink", InvalidPartitionsException.class, () -> admin.createPartitions(Map.of(t, NewPartitions.increaseTo(3))).all().get());
        Proof.await(() -> {
            try {
                return admin.describeTopics(List.of(t)).allTopicNames().get().get(t).partitions().size() == 4;
            } catch (Exception e) {
                return false;
            }
        }, () -> "not 4 partitions");
        var res = new ConfigResource(ConfigResource.Type.TOPIC, t);
        admin.incrementalAlterConfigs(Map.of(res, List.of(new AlterConfigOp(new ConfigEntry("retention.ms", "222222"), AlterConfigOp.OpType.SET)))).all().get();
        Proof.await(() -> {
            try {
                return admin.describeConfigs(List.of(res)).all().get().get(res).get("retention.ms").value().equals("222222");
            } catch (Exception e) {
                return false;
            }
        }, () -> "retention.ms was not altered");
        var e = admin.describeConfigs(List.of(res), new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true)).all().get().get(res).get("retention.ms");
        Proof.equal(e.source() + " " + e.type() + " " + (e.documentation() != null) + " " + e.synonyms().get(0).name(), "DYNAMIC_TOPIC_CONFIG LONG true retention.ms", "config entry");
        var c = admin.describeCluster();
        int id = c.nodes().get().iterator().next().id(), controller = c.controller().get().id();
        Proof.equal(c.nodes().get().stream().anyMatch(n -> n.id() == controller), true, "controller " + controller + " is a broker");
        var dirs = admin.describeLogDirs(List.of(id)).allDescriptions().get().get(id);
        Proof.equal(dirs.values().stream().anyMatch(d -> d.replicaInfos().containsKey(new TopicPartition(t, 0))), true, "log dir lists the partition");
        var brokerConf = new ConfigResource(ConfigResource.Type.BROKER, "" + id);
        Proof.equal(admin.describeConfigs(List.of(brokerConf)).all().get().get(brokerConf).get("log.segment.bytes").value(), "1073741824", "log.segment.bytes");
        fill(t, 4, 0, 40);
        var tp = new TopicPartition(t, 0);
        Proof.equal(admin.deleteRecords(Map.of(tp, RecordsToDelete.beforeOffset(4))).lowWatermarks().get(tp).get().lowWatermark(), 4L, "low watermark");
        Proof.equal(read(t, 1).get(0).offset(), 4L, "first offset");
        Proof.equal(admin.listTopics().names().get().contains(t), true, "listed");
        Proof.equal(admin.describeFeatures().featureMetadata().get() != null, true, "features");
        var id2 = admin.describeTopics(List.of(t)).allTopicNames().get().get(t).topicId();
        Proof.equal(admin.describeTopics(org.apache.kafka.common.TopicCollection.ofTopicIds(List.of(id2))).allTopicIds().get().get(id2).name(), t, "by id");
        admin.deleteTopics(List.of(t)).all().get();
        Proof.await(() -> error(() -> admin.describeTopics(List.of(t)).allTopicNames().get()) instanceof UnknownTopicOrPartitionException, () -> "still there");
        fails("delete twice", UnknownTopicOrPartitionException.class, () -> admin.deleteTopics(List.of(t)).all().get());
        return "topics by name and id, grow, configs with synonyms and docs, cluster, log dirs, features, delete records, delete";
    }

    static String adminGroups() throws Exception {
        String t = topic("ag", 1), g = "g" + t;
        fill(t, 1, 0, 10);
        var tp = new TopicPartition(t, 0);
        admin.alterConsumerGroupOffsets(g, Map.of(tp, new OffsetAndMetadata(6, Optional.of(0), "note"))).all().get();
        var o = admin.listConsumerGroupOffsets(g).partitionsToOffsetAndMetadata().get().get(tp);
        Proof.equal(o.offset() + o.metadata() + o.leaderEpoch(), "6noteOptional[0]", "offset");
        try (var c = consumer("group.id", g)) {
            c.assign(List.of(tp));
            Proof.equal(poll(c, 4).get(0).offset(), 6L, "resumes at the committed offset");
            c.commitSync(Map.of(tp, new OffsetAndMetadata(8)));
            Proof.equal(c.committed(Set.of(tp)).get(tp).offset(), 8L, "committed");
        }
        Proof.equal(admin.listGroups().all().get().stream().anyMatch(l -> l.groupId().equals(g)), true, "listed");
        admin.deleteConsumerGroupOffsets(g, Set.of(tp)).all().get();
        Proof.equal(admin.listConsumerGroupOffsets(g).partitionsToOffsetAndMetadata().get().get(tp), null, "deleted offset");
        admin.alterConsumerGroupOffsets(g, Map.of(tp, new OffsetAndMetadata(1))).all().get();
        admin.deleteConsumerGroups(List.of(g)).all().get();
        fails("describe", GroupIdNotFoundException.class, () -> admin.describeConsumerGroups(List.of(g)).all().get());
        fails("delete twice", GroupIdNotFoundException.class, () -> admin.deleteConsumerGroups(List.of(g)).all().get());
        return "alter, list, resume, commit, delete offsets, delete group";
    }
}
