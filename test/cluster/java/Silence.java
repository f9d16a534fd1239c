import java.io.BufferedOutputStream;
import java.io.FileOutputStream;
import java.io.FileDescriptor;
import java.io.PrintStream;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * The Java client at its defaults: produces one record to each partition every 20 ms, reads everything, and prints a line for
 * each acknowledgement ("a PARTITION NANOSECONDS"), each record read ("c ...") and each record given up ("e ...").
 * Arguments: BOOTSTRAP TOPIC PARTITIONS [TIMEOUT-MS].
 */
public class Silence {
    static final PrintStream out = new PrintStream(new BufferedOutputStream(new FileOutputStream(FileDescriptor.out), 8192), false);

    static synchronized void say(String what, int part, Object text) {
        out.println(what + " " + part + " " + text);
        out.flush();
    }

    static long now() {
        Instant t = Instant.now();
        return t.getEpochSecond() * 1_000_000_000L + t.getNano();
    }

    public static void main(String[] args) throws Exception {
        String topic = args[1];
        int parts = Integer.parseInt(args[2]);
        Properties common = new Properties();
        common.put("bootstrap.servers", args[0]);
        if (args.length > 3 && !args[3].equals("0")) {
            common.put("request.timeout.ms", args[3]);
        }
        Thread reader = new Thread(() -> read(common, topic, parts));
        reader.setDaemon(true);
        reader.start();
        KafkaProducer<byte[], byte[]> p = new KafkaProducer<>(common, new ByteArraySerializer(), new ByteArraySerializer());
        long due = System.nanoTime();
        while (true) {
            for (int i = 0; i < parts; i++) {
                final int part = i;
                p.send(new ProducerRecord<>(topic, part, null, "letter".getBytes()), (m, e) -> {
                    if (e != null) {
                        say("e", part, e);
                    } else {
                        say("a", part, now());
                    }
                });
            }
            due += 20_000_000L;
            long left = due - System.nanoTime();
            if (left > 0) {
                Thread.sleep(left / 1_000_000L, (int) (left % 1_000_000L));
            }
        }
    }

    static void read(Properties common, String topic, int parts) {
        KafkaConsumer<byte[], byte[]> c = new KafkaConsumer<>(common, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        List<TopicPartition> all = new ArrayList<>();
        for (int i = 0; i < parts; i++) {
            all.add(new TopicPartition(topic, i));
        }
        c.assign(all);
        c.seekToEnd(all);
        while (true) {
            for (ConsumerRecord<byte[], byte[]> r : c.poll(Duration.ofMillis(100))) {
                say("c", r.partition(), now());
            }
        }
    }
}
