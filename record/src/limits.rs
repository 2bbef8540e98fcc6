//! How much of a batch is believed.

/// Bounds on a batch, checked before anything is allocated for what the batch claims.
///
/// Brokers take the [`Default`]; consumers, who must read what another broker has accepted,
/// take [`BatchLimits::consumer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// The largest batch, header and all, in bytes as it travels (1 MiB and the header by
    /// default, as Kafka's `max.message.bytes`).
    pub batch_bytes_max: usize,
    /// The most headers of one record (64 by default).
    pub headers_per_record_max: u32,
    /// The most bytes that a batch's records may have once decompressed (32 MiB by default).
    pub decompressed_bytes_max: usize,
    /// How many times its compressed size a batch may become once
    /// [`decompression_ratio_free_bytes`](BatchLimits::decompression_ratio_free_bytes) have
    /// come out (200 by default).
    pub decompression_ratio_max: usize,
    /// Up to how many decompressed bytes any ratio is fine (64 KiB by default): small batches
    /// of equal bytes have honest ratios of thousands.
    pub decompression_ratio_free_bytes: usize,
    /// The logarithm of the largest window, in bytes, that a zstd frame may demand of its
    /// decoder (23 by default, 8 MiB).
    pub zstd_window_log_max: u32,
}

impl Default for BatchLimits {
    fn default() -> BatchLimits {
        BatchLimits {
            batch_bytes_max: (1 << 20) + 12,
            headers_per_record_max: 64,
            decompressed_bytes_max: 32 << 20,
            decompression_ratio_max: 200,
            decompression_ratio_free_bytes: 64 << 10,
            zstd_window_log_max: 23,
        }
    }
}

impl BatchLimits {
    /// What a consumer can read: whatever a Kafka broker may have stored, bounded absolutely.
    /// No ratio is too high, since a batch of zeros compresses honestly by a factor of
    /// thousands, and windows are those that zstd's strongest levels use.
    #[must_use]
    pub fn consumer() -> BatchLimits {
        BatchLimits {
            batch_bytes_max: 128 << 20,
            headers_per_record_max: 1 << 20,
            decompressed_bytes_max: 256 << 20,
            decompression_ratio_max: usize::MAX,
            decompression_ratio_free_bytes: 0,
            zstd_window_log_max: 27,
        }
    }
}
