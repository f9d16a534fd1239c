"""What the Python client programs share: one line for each thing proved."""
import os
import random
import sys
import time
import traceback

tag = "%x" % int(time.time() * 1000)
client = "?"
failed = 0
factor = int(os.environ.get("FACTOR", "1"))  # of the topics that the checks make


def broker():
    return sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9092"


def name(s):
    return "c-%s-%s-%s" % (client, s, tag)


def that(what):
    """Runs the decorated function at once; it returns what it proved or raises."""
    def run(fn):
        global failed
        begin = time.time()
        try:
            text = fn()
            print("ok %s/%s %s (%d ms)" % (client, what, text, (time.time() - begin) * 1000), flush=True)
        except Exception as e:  # noqa: BLE001 - any exception of a client is a failed check
            failed += 1
            where = traceback.extract_tb(e.__traceback__)[-1]
            print("FAIL %s/%s %s: %s (line %d of %s)" % (client, what, type(e).__name__, str(e).replace("\n", " ")[:300],
                                                      where.lineno, where.filename.rsplit("/", 1)[-1]), flush=True)
        return fn
    return run


def equal(got, want, what=""):
    if got != want:
        raise AssertionError("%s got %.200r, want %.200r" % (what, got, want))


def wait(cond, what, limit=20):
    end = time.time() + limit
    while True:
        x = cond()
        if x:
            return x
        if time.time() > end:
            raise AssertionError("after %d s: %s" % (limit, what() if callable(what) else what))
        time.sleep(0.05)


def text(seed, n):
    r = random.Random(seed)
    return "".join("event %d of user-%d; " % (r.randrange(1000), r.randrange(50)) for _ in range(n // 12 + 1)).encode()[:n]


def noise(seed, n):
    return random.Random(seed).randbytes(n)


def done():
    print("done", client)
    sys.exit(1 if failed else 0)
