//! What a record is: Kafka v2 batches, compression, checksums, and the buffers they lie in.
