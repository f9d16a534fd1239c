"""kafka-python: what it sees of the broker. Usage: kafkapython.py HOST:PORT"""
import logging
import threading
import time

import proof
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewPartitions, NewTopic
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata
from proof import equal, name, that, wait

logging.disable(logging.CRITICAL)
proof.client = "kafka-python"
base = {"bootstrap_servers": proof.broker()}
admin = KafkaAdminClient(**base)


def topic(s, parts=1, conf=None):
    t = name(s)
    admin.create_topics([NewTopic(t, num_partitions=parts, replication_factor=proof.factor, topic_configs=conf or {})])
    return t


def produce(t, recs, **conf):
    p = KafkaProducer(**dict(base, acks="all", linger_ms=5, **conf))
    try:
        return [f.get(20) for f in [p.send(t, **r) for r in recs]]
    finally:
        p.close()


def consumer(**conf):
    return KafkaConsumer(**dict(base, auto_offset_reset="earliest", enable_auto_commit=False, fetch_max_wait_ms=200, **conf))


def read(t, n, part=0, **conf):
    c = consumer(**conf)
    tp = TopicPartition(t, part)
    c.assign([tp])
    c.seek_to_beginning(tp)
    out, end = [], time.time() + 15
    while len(out) < n and time.time() < end:
        for rs in c.poll(500).values():
            out += rs
    c.close(autocommit=False)
    equal(len(out), n, "records read")
    return out


def codecs():
    for z in None, "gzip", "snappy", "lz4", "zstd":
        @that("codec-" + (z or "none"))
        def _(z=z):
            t = topic("codec-" + (z or "none"))
            produce(t, [dict(key=b"%d" % i, value=proof.text(i, 300), headers=[("n", b"%d" % i)]) for i in range(300)], compression_type=z)
            for i, m in enumerate(read(t, 300)):
                equal((m.offset, m.key, m.value, list(m.headers)), (i, b"%d" % i, proof.text(i, 300), [("n", b"%d" % i)]))
            return "300 records with keys and headers came back equal"


codecs()


@that("nulls")
def _():
    t = topic("nulls")
    produce(t, [dict(key=b"k", value=None), dict(value=b""), dict(key=b"", value=b"x")])
    equal([(m.key, m.value) for m in read(t, 3)], [(b"k", None), (None, b""), (b"", b"x")])
    return "null and empty keys and values stay apart"


@that("big")
def _():
    t = topic("big", 1, {"max.message.bytes": "2000000"})
    v = proof.noise(2, 1 << 20)
    produce(t, [dict(value=v)], max_request_size=2000000)
    equal(read(t, 1, max_partition_fetch_bytes=5000)[0].value == v, True, "value")
    return "1 MiB passed with max_partition_fetch_bytes=5000"


@that("timestamps-and-offsets-by-time")
def _():
    t = topic("ts")
    t0 = int(time.time() * 1000) - 3600000
    for i in range(6):
        produce(t, [dict(value=b"v", timestamp_ms=t0 + i * 1000)])
    equal([m.timestamp for m in read(t, 6)], [t0 + i * 1000 for i in range(6)])
    c, tp = consumer(), TopicPartition(t, 0)
    for ms, want in (t0, 0), (t0 + 2500, 3), (t0 + 5001, None):
        o = c.offsets_for_times({tp: ms})[tp]
        equal(o and o.offset, want, "time base+%d:" % (ms - t0))
    equal((c.beginning_offsets([tp])[tp], c.end_offsets([tp])[tp]), (0, 6))
    c.close()
    return "create time kept; exact, between, after the end, begin, end"


@that("seek")
def _():
    t = topic("seek")
    produce(t, [dict(value=b"%d" % i) for i in range(100)])
    c, tp = consumer(max_poll_records=1), TopicPartition(t, 0)
    c.assign([tp])
    for at in 44, 1, 99:
        c.seek(tp, at)
        equal(next(c).offset, at)
    c.seek(tp, 7777)
    equal(next(c).offset, 0, "out of range resets to earliest:")
    c.close()
    return "44, 1, 99; offset 7777 resets"


@that("idempotent")
def _():
    t = topic("idem")
    produce(t, [dict(value=b"%d" % i) for i in range(2000)], enable_idempotence=True, batch_size=500)
    equal([int(m.value) for m in read(t, 2000)], list(range(2000)))
    return "2000 records in order, once each"


class Member(threading.Thread):
    def __init__(self, group, t, **conf):
        super().__init__(daemon=True)
        self.c = KafkaConsumer(t, **dict(base, group_id=group, auto_offset_reset="earliest", auto_commit_interval_ms=100, heartbeat_interval_ms=300,
                                         fetch_max_wait_ms=200, **conf))
        self.seen, self.own, self.stop = [], set(), False
        self.start()

    def run(self):
        while not self.stop:
            for rs in self.c.poll(100).values():
                self.seen += [m.value for m in rs]
            self.own = {p.partition for p in self.c.assignment()}
        self.c.close()

    def leave(self):
        self.stop = True
        self.join(20)


@that("group")
def _():
    t, g = topic("group", 4), name("g")
    produce(t, [dict(partition=i % 4, value=b"%d" % i) for i in range(400)])
    a = Member(g, t)
    wait(lambda: len(a.own) == 4 and len(a.seen) == 400, lambda: "%s, %d records" % (a.own, len(a.seen)))
    b = Member(g, t)
    wait(lambda: len(a.own) == 2 and len(b.own) == 2, lambda: "%s and %s" % (a.own, b.own))
    a.leave()
    wait(lambda: len(b.own) == 4, lambda: "after a leave %s" % b.own)
    produce(t, [dict(partition=i, value=b"new") for i in range(4)])
    wait(lambda: b.seen == [b"new"] * 4, lambda: "%d new records, want 4" % len(b.seen))
    b.leave()
    return "4, 2+2, 4 partitions; committed offsets carried over"


@that("static")
def _():
    t, g = topic("static", 2), name("g-static")
    a, b = Member(g, t, group_instance_id="one"), Member(g, t, group_instance_id="two")
    wait(lambda: len(a.own) == 1 and len(b.own) == 1, lambda: "%s and %s" % (a.own, b.own))
    own = set(a.own)
    a.leave()
    a = Member(g, t, group_instance_id="one")
    wait(lambda: a.own == own, "the static member did not get its partition back")
    a.leave()
    b.leave()
    return "a static member came back to its partition"


@that("commit")
def _():
    t, g = topic("commit"), name("g-commit")
    produce(t, [dict(value=b"%d" % i) for i in range(10)])
    c, tp = consumer(group_id=g), TopicPartition(t, 0)
    c.assign([tp])
    c.commit({tp: OffsetAndMetadata(7, "why", -1)})
    equal(c.committed(tp), 7)
    c.close(autocommit=False)
    c = consumer(group_id=g)
    c.assign([tp])
    equal(next(c).offset, 7, "resumes at")
    c.close(autocommit=False)
    return "commit and resume without a membership"


@that("admin")
def _():
    t = topic("admin", 2, {"retention.ms": "111111"})
    try:
        topic("admin")
        raise AssertionError("a second create passed")
    except KafkaError as e:
        equal(type(e).__name__, "TopicAlreadyExistsError")
    admin.create_partitions({t: NewPartitions(3)})
    wait(lambda: len(admin.describe_topics([t])[0]["partitions"]) == 3, "not 3 partitions")
    equal("111111" in str(admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, t)])), True, "retention.ms described")
    equal(t in admin.list_topics(), True, "listed")
    admin.delete_topics([t])
    wait(lambda: t not in admin.list_topics(), "still listed")
    return "create, exists, grow, describe, configs, delete"


proof.done()
