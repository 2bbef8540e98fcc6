//! Kafka's requests and answers: versions, codecs, error codes.
