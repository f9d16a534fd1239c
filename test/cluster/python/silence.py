"""A librdkafka client (confluent-kafka) that produces one record to each partition every 20 ms, reads everything, and prints a
line for each acknowledgement ("a PARTITION NANOSECONDS"), each record read ("c ...") and each record given up ("e ...").

usage: silence.py BOOTSTRAP TOPIC PARTITIONS [TIMEOUT-MS] [tuned]
"""
import sys
import threading
import time

from confluent_kafka import Consumer, Producer, TopicPartition, OFFSET_END

bootstrap, topic, parts = sys.argv[1], sys.argv[2], int(sys.argv[3])
timeout = int(sys.argv[4]) if len(sys.argv) > 4 else 0
tuned = "tuned" in sys.argv[5:]
lock = threading.Lock()


def say(what, part, text):
    with lock:
        sys.stdout.write(f"{what} {part} {text}\n")
        sys.stdout.flush()


common = {"bootstrap.servers": bootstrap, "log_level": 0}
consume = {"group.id": "silence", "enable.auto.commit": False}
if tuned:
    # The library's own pauses are longer than what is measured here. It asks for metadata when a connection breaks, which
    # is before anybody has been elected, and then looks at missing leaders once a second; a consumer rests for 500 ms
    # after an error.
    common["topic.metadata.refresh.interval.ms"] = 100
    consume["fetch.error.backoff.ms"] = 50
produce = {}
if timeout:
    common["socket.timeout.ms"] = timeout
    produce["request.timeout.ms"] = timeout
    consume["fetch.wait.max.ms"] = timeout // 10  # the library asks for a distance between the two


def read():
    c = Consumer({**common, **consume})
    c.assign([TopicPartition(topic, p, OFFSET_END) for p in range(parts)])
    while True:
        m = c.poll(0.1)
        if m is not None and m.error() is None:
            say("c", m.partition(), time.time_ns())


def delivered(err, msg):
    if err is not None:
        say("e", msg.partition(), err)
    else:
        say("a", msg.partition(), time.time_ns())


threading.Thread(target=read, daemon=True).start()
p = Producer({**common, **produce})
due = time.monotonic()
while True:
    for part in range(parts):
        try:
            p.produce(topic, b"letter", partition=part, on_delivery=delivered)
        except BufferError as e:
            say("e", part, e)
    due += 0.02
    while (left := due - time.monotonic()) > 0:
        p.poll(left)
    p.poll(0)
