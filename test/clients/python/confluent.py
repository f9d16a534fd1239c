"""confluent-kafka (librdkafka): what it sees of the broker. Usage: confluent.py HOST:PORT"""
import threading
import time

import proof
from confluent_kafka import (OFFSET_BEGINNING, OFFSET_END, Consumer, ConsumerGroupTopicPartitions, KafkaError,
                             KafkaException, Producer, TopicCollection, TopicPartition)
from confluent_kafka.admin import (AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic,
                                   OffsetSpec, ResourceType)
from proof import equal, name, that, wait

proof.client = "confluent"
base = {"bootstrap.servers": proof.broker(), "log_level": 0}
admin = AdminClient(base)


def topic(s, parts=1, conf=None):
    t = name(s)
    admin.create_topics([NewTopic(t, parts, proof.factor, config=conf or {})])[t].result(20)
    return t


def produce(t, recs, **conf):
    """recs: dicts of Producer.produce arguments. Raises the first delivery error; returns the messages."""
    p, errs, out = Producer(dict(base, **{"linger.ms": 5, **conf})), [], []

    def cb(err, msg):
        (errs if err else out).append(err or msg)
    for r in recs:
        p.produce(t, on_delivery=cb, **r)
    if p.flush(20):
        raise AssertionError("not delivered after 20 s")
    if errs:
        raise KafkaException(errs[0])
    return out


def consumer(**conf):
    return Consumer(dict(base, **{"group.id": name("none"), "auto.offset.reset": "earliest", "enable.auto.commit": False,
                                  "fetch.wait.max.ms": 200, "heartbeat.interval.ms": 300, "session.timeout.ms": 10000, **conf}))


def read(t, n, part=0, at=OFFSET_BEGINNING, **conf):
    c = consumer(**conf)
    c.assign([TopicPartition(t, part, at)])
    out, end = [], time.time() + 15
    while len(out) < n and time.time() < end:
        for m in c.consume(n - len(out), 0.5):
            if m.error():
                raise KafkaException(m.error())
            out.append(m)
    c.close()
    equal(len(out), n, "records read")
    return out


def code(fn):
    try:
        fn()
    except KafkaException as e:
        return e.args[0].name()
    return "no error"


def codecs():
    for z in "none", "gzip", "snappy", "lz4", "zstd":
        @that("codec-" + z)
        def _(z=z):
            t = topic("codec-" + z)
            produce(t, [dict(key=b"%d" % i, value=proof.text(i, 300), headers=[("n", b"%d" % i)]) for i in range(300)],
                    **{"compression.type": z, "acks": "all"})
            for i, m in enumerate(read(t, 300)):
                equal((m.offset(), m.key(), m.value(), m.headers()), (i, b"%d" % i, proof.text(i, 300), [("n", b"%d" % i)]))
            return "300 records with keys and headers came back equal"


codecs()


@that("nulls")
def _():
    t = topic("nulls")
    produce(t, [dict(), dict(key=b""), dict(value=b""), dict(key=b"k", headers=[("null", None), ("empty", b"")])], **{"linger.ms": 0})
    got = [(m.key(), m.value(), m.headers()) for m in read(t, 4)]
    equal(got, [(None, None, None), (b"", None, None), (None, b"", None), (b"k", None, [("null", None), ("empty", b"")])])
    return "null and empty keys, values and header values stay apart"


@that("big")
def _():
    t = topic("big", 1, {"max.message.bytes": "2000000"})
    v = proof.noise(1, 1 << 20)
    produce(t, [dict(value=v)], **{"message.max.bytes": 2000000})
    equal(read(t, 1, **{"max.partition.fetch.bytes": 1000})[0].value() == v, True, "value")
    small = topic("big-default")
    equal(code(lambda: produce(small, [dict(value=v)], **{"message.max.bytes": 2000000})), "MSG_SIZE_TOO_LARGE", "default topic:")
    return "1 MiB passed with max.partition.fetch.bytes=1000; a default topic refused it"


@that("timestamps-and-offsets-by-time")
def _():
    t = topic("ts")
    t0 = int(time.time() * 1000) - 3600000
    for i in range(10):
        produce(t, [dict(value=b"v", timestamp=t0 + i * 1000)], **{"linger.ms": 0})
    equal([m.timestamp() for m in read(t, 10)], [(1, t0 + i * 1000) for i in range(10)])
    c = consumer()
    for ms, want in (t0, 0), (t0 + 1, 1), (t0 + 4500, 5), (t0 + 9001, OFFSET_END):
        equal(c.offsets_for_times([TopicPartition(t, 0, ms)], 10)[0].offset, want, "time base+%d:" % (ms - t0))
    equal(c.get_watermark_offsets(TopicPartition(t, 0), 10), (0, 10))
    c.close()
    for spec, want in (OffsetSpec.earliest(), 0), (OffsetSpec.latest(), 10), (OffsetSpec.max_timestamp(), 9):
        tp = TopicPartition(t, 0)
        equal(admin.list_offsets({tp: spec})[tp].result(10).offset, want, str(spec))
    la = topic("ts-append", 1, {"message.timestamp.type": "LogAppendTime"})
    produce(la, [dict(value=b"v", timestamp=t0)])
    kind, ms = read(la, 1)[0].timestamp()
    equal((kind, ms > t0 + 3000000), (2, True), "append time")
    return "create time, append time, exact, between, after the end, watermarks, max timestamp"


@that("seek")
def _():
    t = topic("seek")
    produce(t, [dict(value=b"%d" % i) for i in range(100)])
    c = consumer()
    c.assign([TopicPartition(t, 0, 0)])
    wait(lambda: c.poll(0.2), "first record")
    for at in 80, 5, 99:
        c.seek(TopicPartition(t, 0, at))
        equal(wait(lambda: c.poll(0.2), "a record").offset(), at)
    c.pause([TopicPartition(t, 0)])
    equal(c.poll(0.5), None, "paused:")
    c.resume([TopicPartition(t, 0)])
    c.seek(TopicPartition(t, 0, 5000))
    equal(wait(lambda: c.poll(0.2), "a record").offset(), 0, "out of range resets to earliest:")
    c.close()
    return "80, 5, 99, pause and resume, offset 5000 resets"


@that("idempotent")
def _():
    t = topic("idem", 3)
    produce(t, [dict(key=b"%d" % (i % 9), value=b"%d" % i) for i in range(3000)], **{"enable.idempotence": True, "batch.num.messages": 50})
    hw = [consumer().get_watermark_offsets(TopicPartition(t, p), 10)[1] for p in range(3)]
    vals = [int(m.value()) for p in range(3) for m in read(t, hw[p], p)]
    equal(sorted(vals), list(range(3000)))
    return "3000 records in 3 partitions, once each"


class Member(threading.Thread):
    def __init__(self, group, t, **conf):
        super().__init__(daemon=True)
        self.c = consumer(**{"group.id": group, "enable.auto.commit": True, "auto.commit.interval.ms": 100, **conf})
        self.t, self.seen, self.own, self.joins, self.stop = t, [], set(), 0, False
        self.start()

    def assign(self, c, ps):
        self.joins += 1
        self.own |= {p.partition for p in ps}

    def revoke(self, c, ps):
        self.own -= {p.partition for p in ps}

    def run(self):
        self.c.subscribe([self.t], on_assign=self.assign, on_revoke=self.revoke, on_lost=self.revoke)
        while not self.stop:
            m = self.c.poll(0.1)
            if m is not None and not m.error():
                self.seen.append(m.value())
        self.c.close()

    def leave(self):
        self.stop = True
        self.join(20)


def groups():
    for kind in "range", "cooperative-sticky":
        @that("group-" + kind)
        def _(kind=kind):
            t, g = topic("group-" + kind, 4), name("g-" + kind)
            produce(t, [dict(partition=i % 4, value=b"%d" % i) for i in range(400)])
            a = Member(g, t, **{"partition.assignment.strategy": kind})
            wait(lambda: len(a.own) == 4 and len(a.seen) == 400, lambda: "%s, %d records" % (a.own, len(a.seen)))
            b = Member(g, t, **{"partition.assignment.strategy": kind})
            wait(lambda: len(a.own) == 2 and len(b.own) == 2, lambda: "%s and %s" % (a.own, b.own))
            d = admin.describe_consumer_groups([g])[g].result(10)
            equal((d.state.name, len(d.members), d.partition_assignor), ("STABLE", 2, kind))
            a.leave()
            wait(lambda: len(b.own) == 4, lambda: "after a leave %s" % b.own)
            produce(t, [dict(partition=i, value=b"new-%d" % i) for i in range(4)])
            wait(lambda: len(b.seen) == 4, lambda: "%d new records, want 4" % len(b.seen))
            b.leave()
            equal(sorted(b.seen), [b"new-%d" % i for i in range(4)])
            return "4, 2+2, 4 partitions; committed offsets carried over"


groups()


@that("static")
def _():
    t, g = topic("static", 2), name("g-static")
    a, b = Member(g, t, **{"group.instance.id": "one"}), Member(g, t, **{"group.instance.id": "two"})
    wait(lambda: len(a.own) == 1 and len(b.own) == 1, lambda: "%s and %s" % (a.own, b.own))
    before = b.joins
    a.leave()
    a = Member(g, t, **{"group.instance.id": "one"})
    wait(lambda: len(a.own) == 1, "the static member did not come back")
    equal(b.joins, before, "joins of the other member")
    ms = admin.describe_consumer_groups([g])[g].result(10).members
    equal(sorted(m.group_instance_id for m in ms), ["one", "two"])
    a.leave()
    b.leave()
    return "a static member came back without a rebalance of the other"


@that("admin")
def _():
    t = topic("admin", 2, {"retention.ms": "111111"})
    equal(code(lambda: topic("admin")), "TOPIC_ALREADY_EXISTS")
    admin.create_partitions([NewPartitions(t, 4)])[t].result(10)
    equal(code(lambda: admin.create_partitions([NewPartitions(t, 1)])[t].result(10)), "INVALID_PARTITIONS", "shrink:")
    d = wait(lambda: [x for x in [admin.describe_topics(TopicCollection([t]))[t].result(10)] if len(x.partitions) == 4], "4 partitions")[0]
    equal([(p.id, p.leader is not None, len(p.replicas)) for p in d.partitions], [(i, True, proof.factor) for i in range(4)])
    r = ConfigResource(ResourceType.TOPIC, t)
    equal(admin.describe_configs([r])[r].result(10)["retention.ms"].value, "111111")
    r.add_incremental_config(ConfigEntry("retention.ms", "222222", incremental_operation=AlterConfigOpType.SET))
    admin.incremental_alter_configs([r])[r].result(10)
    q = ConfigResource(ResourceType.TOPIC, t)
    wait(lambda: admin.describe_configs([q])[q].result(10)["retention.ms"].value == "222222", "retention.ms was not altered")
    c = admin.describe_cluster().result(10)
    equal((len(c.nodes), c.controller is not None, bool(c.cluster_id)), (proof.factor, True, True), "cluster")
    produce(t, [dict(partition=0, value=b"v") for _ in range(20)])
    tp = TopicPartition(t, 0, 8)
    equal(admin.delete_records([tp])[tp].result(10).low_watermark, 8)
    equal(read(t, 1)[0].offset(), 8, "first offset after delete_records")
    g = name("g-admin")
    admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(g, [TopicPartition(t, 0, 11)])])[g].result(10)
    equal(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(g)])[g].result(10).topic_partitions[0].offset, 11)
    equal(g in [x.group_id for x in admin.list_consumer_groups().result(10).valid], True, "listed")
    admin.delete_consumer_groups([g])[g].result(10)
    equal(code(lambda: admin.delete_consumer_groups([g])[g].result(10)), "GROUP_ID_NOT_FOUND")
    admin.delete_topics([t])[t].result(10)
    wait(lambda: t not in admin.list_topics(timeout=10).topics, "still listed")
    return "create, grow, shrink refused, describe, configs, cluster, delete records, group offsets, delete"


@that("errors")
def _():
    equal(code(lambda: topic("a/b")), "TOPIC_EXCEPTION", "topic name a/b:")
    bad = name("rf")
    equal(code(lambda: admin.create_topics([NewTopic(bad, 1, 9)])[bad].result(10)), "INVALID_REPLICATION_FACTOR")
    equal(code(lambda: admin.create_topics([NewTopic(bad, 1, 1, config={"no.such": "1"})])[bad].result(10)), "INVALID_CONFIG")
    c = consumer(**{"allow.auto.create.topics": False})
    c.subscribe([name("missing")])
    m = wait(lambda: c.poll(0.2), "an error about the missing topic")
    equal(m.error().code(), KafkaError.UNKNOWN_TOPIC_OR_PART)
    c.close()
    return "bad name, factor 9, unknown config, missing topic"


proof.done()
