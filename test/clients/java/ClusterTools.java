import java.nio.file.*;
import java.util.*;
import java.util.regex.Pattern;

/** Kafka's own tools for what only several brokers have. Expects three brokers, 1 to 3, with two log directories each. */
public final class ClusterTools {
    static Tools.Ran reassign(String... a) throws Exception {
        return Tools.run(Tools.T + "reassign.ReassignPartitionsCommand", "", Tools.with(a));
    }

    static Tools.Ran elect(String... a) throws Exception {
        return Tools.run(Tools.T + "LeaderElectionCommand", "", Tools.with(a));
    }

    static Tools.Ran quorum(String... a) throws Exception {
        return Tools.run(Tools.T + "MetadataQuorumCommand", "", Tools.with(a));
    }

    public static void main(String[] args) throws Exception {
        Tools.broker = args[0];
        Proof.client = "cluster";
        String t = Proof.name("t");
        Proof.that("kafka-topics", () -> create(t));
        Proof.that("kafka-reassign-partitions", () -> move(t));
        Proof.that("kafka-reassign-partitions-generate", () -> generate(t));
        Proof.that("kafka-reassign-partitions-cancel", () -> cancel());
        Proof.that("kafka-leader-election", () -> leaders(t));
        Proof.that("kafka-metadata-quorum", ClusterTools::describeQuorum);
        Proof.that("kafka-log-dirs", () -> logDirs(t));
        Proof.that("kafka-reassign-partitions-log-dirs", () -> moveDir(t));
        Proof.that("kafka-cluster", ClusterTools::cluster);
        Proof.that("kafka-features", ClusterTools::features);
        Proof.done();
    }

    static String create(String t) throws Exception {
        Tools.topics("--create", "--topic", t, "--replica-assignment", "1:2,2:3,3:1").ok();
        Tools.run("org.apache.kafka.tools.ProducerPerformance", "", "--topic", t, "--num-records", "20000", "--record-size", "100", "--throughput", "-1",
                "--command-property", "bootstrap.servers=" + Tools.broker, "acks=all");
        String d = Tools.topics("--describe", "--topic", t).ok().must("ReplicationFactor: 2").out();
        for (String want : List.of("Partition: 0\tLeader: 1\tReplicas: 1,2\tIsr: 1,2", "Partition: 1\tLeader: 2\tReplicas: 2,3\tIsr: 2,3", "Partition: 2\tLeader: 3\tReplicas: 3,1\tIsr: 3,1")) {
            if (!d.contains(want)) {
                throw new AssertionError("lacks " + want + ": " + d);
            }
        }
        for (String f : List.of("--under-replicated-partitions", "--under-min-isr-partitions", "--unavailable-partitions")) {
            Proof.equal(Tools.topics("--describe", f, "--topic", t).ok().out().contains("Partition: "), false, f);
        }
        Tools.topics("--create", "--topic", "x-" + t, "--replica-assignment", "1:9").must("9");
        Proof.equal(Tools.topics("--create", "--topic", "x-" + t, "--replication-factor", "4", "--partitions", "1").must("replication factor").status(), 1, "factor 4 of 3 brokers");
        return "replicas as assigned, all in sync";
    }

    static Path json(String s) throws Exception {
        Path f = Files.createTempFile("plan", ".json");
        Files.writeString(f, s);
        f.toFile().deleteOnExit();
        return f;
    }

    static String plan(String t, int p, String replicas) {
        return "{\"version\":1,\"partitions\":[{\"topic\":\"" + t + "\",\"partition\":" + p + ",\"replicas\":[" + replicas + "]}]}";
    }

    static void verify(Path f, String what) throws Exception {
        String[] last = {""};
        Proof.await(() -> {
            try {
                last[0] = reassign("--verify", "--reassignment-json-file", f.toString()).out();
                return last[0].contains(what);
            } catch (Exception e) {
                last[0] = e.toString();
                return false;
            }
        }, () -> last[0]);
    }

    static String move(String t) throws Exception {
        Path f = json(plan(t, 0, "3,2"));
        reassign("--execute", "--reassignment-json-file", f.toString(), "--throttle", "50000000").ok().must("Successfully started partition reassignment for " + t + "-0", "throttle");
        verify(f, "Reassignment of partition " + t + "-0 is completed.");
        reassign("--verify", "--reassignment-json-file", f.toString()).ok();
        reassign("--list").ok().must("No partition reassignments found.");
        String c = Tools.configs("--describe", "--entity-type", "brokers", "--entity-name", "1").ok().out();
        Proof.equal(c.contains("throttled.rate"), false, "throttle left behind: " + c);
        String d = Tools.topics("--describe", "--topic", t).ok().out();
        if (!Pattern.compile("Partition: 0\tLeader: [23]\tReplicas: 3,2\tIsr: [23],[23]").matcher(d).find()) {
            throw new AssertionError(d);
        }
        Path bad = json(plan(t, 0, "1,77"));
        Proof.equal(reassign("--execute", "--reassignment-json-file", bad.toString()).must("77").status(), 1, "status of an unknown broker");
        return "partition 0 moved from 1 to 3 under a throttle that is gone afterwards, an unknown broker refused";
    }

    static String generate(String t) throws Exception {
        Path f = json("{\"version\":1,\"topics\":[{\"topic\":\"" + t + "\"}]}");
        reassign("--generate", "--topics-to-move-json-file", f.toString(), "--broker-list", "1,2,3").ok().must("Current partition replica assignment", "Proposed partition reassignment configuration", "\"topic\":\"" + t + "\"");
        return "a plan for three brokers";
    }

    static String cancel() throws Exception {
        String t = Proof.name("cancel");
        Tools.topics("--create", "--topic", t, "--replica-assignment", "1").ok();
        Tools.run("org.apache.kafka.tools.ProducerPerformance", "", "--topic", t, "--num-records", "30000", "--record-size", "1000", "--throughput", "-1",
                "--command-property", "bootstrap.servers=" + Tools.broker, "acks=all");
        Path f = json(plan(t, 0, "2"));
        reassign("--execute", "--reassignment-json-file", f.toString(), "--throttle", "100000").ok().must("Successfully started");
        reassign("--list").ok().must(t + "-0: replicas: 2,1. adding: 2. removing: 1.");
        reassign("--verify", "--preserve-throttles", "--reassignment-json-file", f.toString()).must("still in progress");
        reassign("--cancel", "--reassignment-json-file", f.toString()).ok().must("Successfully cancelled partition reassignment for: " + t + "-0");
        Tools.topics("--describe", "--topic", t).ok().must("Leader: 1\tReplicas: 1\tIsr: 1");
        reassign("--list").ok().must("No partition reassignments found.");
        return "30 MB at 100 kB/s listed, in progress, cancelled; the old replica leads";
    }

    static String leaders(String t) throws Exception {
        Path f = json(plan(t, 1, "3,2"));
        reassign("--execute", "--reassignment-json-file", f.toString()).ok();
        verify(f, "is completed");
        var r = elect("--election-type", "preferred", "--topic", t, "--partition", "1");
        if (!r.out().contains("Successfully completed leader election (PREFERRED) for partitions " + t + "-1") && !r.out().contains("Valid replica already elected for partitions " + t + "-1")) {
            throw new AssertionError(r.out());
        }
        Tools.topics("--describe", "--topic", t).ok().must("Partition: 1\tLeader: 3\tReplicas: 3,2");
        elect("--election-type", "preferred", "--topic", t, "--partition", "1").ok().must("Valid replica already elected for partitions " + t + "-1");
        elect("--election-type", "preferred", "--all-topic-partitions").ok();
        elect("--election-type", "unclean", "--topic", t, "--partition", "1").ok().must("Valid replica already elected");
        var none = elect("--election-type", "preferred", "--topic", t, "--partition", "44");
        Proof.equal(none.status(), 1, "status for a partition that is not there: " + none.out());
        return "the first replica leads; elected already, all partitions, unclean, unknown partition";
    }

    static String describeQuorum() throws Exception {
        var s = quorum("describe", "--status").ok().must("ClusterId: ", "LeaderId: ", "LeaderEpoch: ", "HighWatermark: ", "CurrentVoters: ");
        List<String> leader = s.line("LeaderId:");
        String voters = s.line("CurrentVoters:").toString();
        for (int id = 1; id <= 3; id++) {
            if (!Pattern.compile("\\b" + id + "\\b").matcher(voters).find()) {
                throw new AssertionError("voter " + id + " is not among " + voters);
            }
        }
        var r = quorum("describe", "--replication").ok().must("NodeId", "Lag", "Leader", "Follower");
        Proof.equal(r.out().lines().filter(l -> l.contains("Follower")).count(), 2L, "followers: " + r.out());
        return "leader " + leader.get(1) + " of three voters, their addresses and lags";
    }

    static String logDirs(String t) throws Exception {
        String o = Tools.run(Tools.T + "LogDirsCommand", "", Tools.with("--describe", "--topic-list", t)).ok().out();
        Proof.equal(Pattern.compile("\"broker\":[123],").matcher(o).results().count(), 3L, "brokers: " + o);
        Proof.equal(Pattern.compile("\"logDir\":").matcher(o).results().count(), 6L, "directories: " + o);
        Proof.equal(Pattern.compile("\"partition\":\"" + t + "-").matcher(o).results().count(), 6L, "replicas: " + o);
        return "3 brokers, 6 directories, 6 replicas";
    }

    /** Moves a replica of partition 2 on broker 3 to the directory where it is not. */
    static String moveDir(String t) throws Exception {
        String o = Tools.run(Tools.T + "LogDirsCommand", "", Tools.with("--describe", "--topic-list", t, "--broker-list", "3")).ok().out();
        String from = null;
        var all = Pattern.compile("\"logDir\":\"([^\"]+)\"|\"partition\":\"" + t + "-2\"").matcher(o);
        // The order of the two in the JSON is the tool's: the partitions of a directory stand between its brace and the next.
        for (String d : o.split("\\},\\{\"(?=error|logDir|partitions)")) {
            var m = Pattern.compile("logDir\":\"([^\"]+)\"").matcher(d);
            if (m.find() && d.contains("\"" + t + "-2\"")) {
                from = m.group(1);
            }
        }
        List<String> found = new ArrayList<>();
        while (all.find()) {
            if (all.group(1) != null && !found.contains(all.group(1))) {
                found.add(all.group(1));
            }
        }
        String was = from;
        String to = found.stream().filter(d -> !d.equals(was)).findFirst().orElseThrow(() -> new AssertionError("one directory: " + o));
        Path f = json("{\"version\":1,\"partitions\":[{\"topic\":\"" + t + "\",\"partition\":2,\"replicas\":[3,1],\"log_dirs\":[\"" + to + "\",\"any\"]}]}");
        reassign("--execute", "--reassignment-json-file", f.toString()).ok().must("Successfully started moving log directory to " + to + " for replica " + t + "-2 with broker 3");
        verify(f, "Reassignment of replica " + t + "-2-3 completed successfully.");
        String now = Tools.run(Tools.T + "LogDirsCommand", "", Tools.with("--describe", "--topic-list", t, "--broker-list", "3")).ok().out();
        Proof.equal(now.contains("\"isFuture\":true"), false, "still a future replica: " + now);
        return "a replica went to the other directory of broker 3";
    }

    static String cluster() throws Exception {
        String c = Tools.T + "ClusterTool";
        var l = Tools.run(c, "", "list-endpoints", "--bootstrap-server", Tools.broker).ok();
        Proof.equal(l.out().lines().filter(x -> x.contains("rack")).count(), 3L, "endpoints: " + l.out());
        var u = Tools.run(c, "", "unregister", "--bootstrap-server", Tools.broker, "--id", "77");
        if (!u.out().contains("not") || u.out().contains("no longer registered.")) {
            throw new AssertionError(u.out());
        }
        return "three endpoints with their racks; broker 77 cannot be unregistered";
    }

    static String features() throws Exception {
        var r = Tools.run(Tools.T + "FeatureCommand", "", Tools.with("describe")).ok().must("Feature: metadata.version");
        return r.out().lines().filter(l -> l.startsWith("Feature: ")).count() + " features";
    }
}
