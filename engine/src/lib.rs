//! The deterministic ring: shards, partitions, controller and request logic.
