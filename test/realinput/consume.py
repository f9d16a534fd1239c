"""A group member in Python (confluent-kafka): prints "read P FROM TO" for what it read, then commits; leaves when its standard input ends.
Usage: consume.py HOST:PORT TOPIC GROUP"""
import sys
import threading

from confluent_kafka import Consumer, KafkaException, TopicPartition

addr, topic, group = sys.argv[1:4]
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
c = Consumer({
    "bootstrap.servers": addr, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False, "session.timeout.ms": 20000,
    "heartbeat.interval.ms": 500, "partition.assignment.strategy": "range", "fetch.wait.max.ms": 300, "reconnect.backoff.max.ms": 300, "log_level": 0})
c.subscribe([topic], on_assign=lambda _, ps: print("assigned", len(ps), flush=True))
while not stop.is_set():
    at = {}
    for m in c.consume(5000, 0.3):
        if m.error():
            continue
        p, o = m.partition(), m.offset()
        if p in at and at[p][1] == o:
            at[p][1] = o + 1
            continue
        if p in at:
            print("read", p, *at[p])
        at[p] = [o, o + 1]
    if not at:
        continue
    for p, (a, b) in at.items():
        print("read", p, a, b)
    sys.stdout.flush()
    try:
        c.commit(offsets=[TopicPartition(topic, p, b) for p, (_, b) in at.items()], asynchronous=False)
    except KafkaException:
        pass  # a rebalance or a dead broker: somebody reads these again, which is allowed
c.close()
