"""Sends the files named on standard input, one path a line after the root, with confluent-kafka (idempotent, acks=all).
Usage: produce.py HOST:PORT TOPIC ROOT RATE. Prints "acked N" as it goes and "done N" or "error TEXT" at the end."""
import sys
import time

from confluent_kafka import Producer

addr, topic, root, rate = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
acked, error = 0, None


def delivered(err, _):
    global acked, error
    if err:
        error = error or err
        return
    acked += 1
    if acked % 1000 == 0:
        print("acked", acked, flush=True)


p = Producer({
    "bootstrap.servers": addr, "enable.idempotence": True, "acks": "all", "linger.ms": 5, "compression.type": "zstd", "message.timeout.ms": 900000,
    "queue.buffering.max.messages": 20000, "retry.backoff.ms": 100, "reconnect.backoff.max.ms": 300, "message.max.bytes": 3000000,
    "topic.metadata.refresh.interval.ms": 5000, "partitioner": "murmur2_random", "log_level": 3})
begin, sent = time.time(), 0
for path in sys.stdin.buffer.read().decode().split("\n"):
    if not path:
        continue
    with open(root + "/" + path, "rb") as f:
        lines = f.read().split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    key = path.encode()
    for n, line in enumerate(lines, 1):
        v = b"%s\t%d\t%s" % (key, n, line)
        while True:
            try:
                p.produce(topic, value=v, key=key, on_delivery=delivered)
                break
            except BufferError:
                p.poll(0.05)
        sent += 1
        if sent % 200 == 0:
            p.poll(0)
            if rate:
                time.sleep(max(0, sent / rate - (time.time() - begin)))
    if error:
        break
left = p.flush(600)
if error or left:
    print("error", error or "%d records not delivered" % left, flush=True)
    sys.exit(1)
print("done", acked, flush=True)
