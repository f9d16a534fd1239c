import java.util.concurrent.Callable;
import java.util.function.BooleanSupplier;
import java.util.function.Supplier;

/** One line for each thing proved. */
final class Proof {
    static String client = "?";
    static final String TAG = Long.toHexString(System.currentTimeMillis());
    static int failed;
    /** Replication factor of the topics that the checks make: how many brokers are under test. */
    static final short FACTOR = Short.parseShort(System.getenv().getOrDefault("FACTOR", "1"));

    static String name(String s) {
        return "c-" + client + "-" + s + "-" + TAG;
    }

    /** Runs one check: it returns what it proved or throws. */
    static void that(String what, Callable<String> fn) {
        long begin = System.currentTimeMillis();
        try {
            String s = fn.call();
            say("ok " + client + "/" + what + " " + s + " (" + (System.currentTimeMillis() - begin) + " ms)");
        } catch (Throwable t) {
            failed++;
            Throwable c = t.getCause() != null && t instanceof java.util.concurrent.ExecutionException ? t.getCause() : t;
            String at = "";
            for (StackTraceElement e : t.getStackTrace()) {
                if (e.getFileName() != null && (e.getFileName().startsWith("JavaClient") || e.getFileName().startsWith("Tools"))) {
                    at = " at " + e.getFileName() + ":" + e.getLineNumber();
                    break;
                }
            }
            String m = String.valueOf(c.getMessage()).replace('\n', '|');
            say("FAIL " + client + "/" + what + " " + c.getClass().getSimpleName() + ": " + m.substring(0, Math.min(900, m.length())) + at);
        }
    }

    static final java.io.PrintStream OUT = System.out;

    static void say(String s) {
        OUT.println(s);
        OUT.flush();
    }

    static void equal(Object got, Object want, String what) {
        if (!java.util.Objects.equals(got, want)) {
            throw new AssertionError(what + ": got " + got + ", want " + want);
        }
    }

    static void await(BooleanSupplier cond, Supplier<String> what) throws InterruptedException {
        long end = System.currentTimeMillis() + 20000;
        while (!cond.getAsBoolean()) {
            if (System.currentTimeMillis() > end) {
                throw new AssertionError("after 20 s: " + what.get());
            }
            Thread.sleep(30);
        }
    }

    static void done() {
        say("done " + client);
        Runtime.getRuntime().halt(failed > 0 ? 1 : 0);
    }
}
