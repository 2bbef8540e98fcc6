package highwater;

import java.io.BufferedReader;
import java.io.BufferedWriter;
import java.io.OutputStreamWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Kafka's own producer (idempotent, acks=all, as it comes) and its consumer with assign().
 *
 * <pre>
 *   Flights produce BOOTSTRAP TOPIC FILE     rows of a CSV without its header, keyed by carrier
 *   Flights consume BOOTSTRAP TOPIC          prints "partition TAB key TAB value" up to the end
 * </pre>
 */
public final class Flights {
  private static final int CARRIER = 9;
  private static final Duration PATIENCE = Duration.ofSeconds(60);

  public static void main(String[] arguments) throws Exception {
    switch (arguments[0]) {
      case "produce" -> produce(arguments[1], arguments[2], Path.of(arguments[3]));
      case "consume" -> consume(arguments[1], arguments[2]);
      default -> throw new IllegalArgumentException(arguments[0]);
    }
  }

  private static void produce(String bootstrap, String topic, Path file) throws Exception {
    Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "linger.ms", 5);
    AtomicReference<Exception> failure = new AtomicReference<>();
    long sent = 0;
    try (KafkaProducer<String, String> producer =
            new KafkaProducer<>(config, new StringSerializer(), new StringSerializer());
        BufferedReader rows = Files.newBufferedReader(file)) {
      rows.readLine();
      for (String row = rows.readLine(); row != null; row = rows.readLine()) {
        String carrier = row.split(",", CARRIER + 2)[CARRIER];
        producer.send(
            new ProducerRecord<>(topic, carrier, row),
            (metadata, error) -> {
              if (error != null) {
                failure.compareAndSet(null, error);
              }
            });
        sent++;
      }
      producer.flush();
    }
    if (failure.get() != null) {
      throw failure.get();
    }
    System.err.println("acknowledged " + sent);
  }

  private static void consume(String bootstrap, String topic) throws Exception {
    Map<String, Object> config = Map.of("bootstrap.servers", bootstrap);
    try (KafkaConsumer<String, String> consumer =
            new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
        BufferedWriter out =
            new BufferedWriter(new OutputStreamWriter(System.out, StandardCharsets.UTF_8))) {
      List<TopicPartition> partitions = new ArrayList<>();
      consumer.partitionsFor(topic).forEach(p -> partitions.add(new TopicPartition(topic, p.partition())));
      consumer.assign(partitions);
      consumer.seekToBeginning(partitions);
      Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
      long deadline = System.nanoTime() + PATIENCE.toNanos();
      while (partitions.stream().anyMatch(p -> consumer.position(p) < ends.get(p))) {
        var records = consumer.poll(Duration.ofMillis(200));
        for (var record : records) {
          out.write(record.partition() + "\t" + record.key() + "\t" + record.value() + "\n");
        }
        if (!records.isEmpty()) {
          deadline = System.nanoTime() + PATIENCE.toNanos();
        } else if (System.nanoTime() > deadline) {
          throw new IllegalStateException("no records for " + PATIENCE);
        }
      }
    }
  }

  private Flights() {}
}
