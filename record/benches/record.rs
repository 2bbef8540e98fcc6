//! What the parts of a record's way cost: checksums, checking a batch, building and reading one,
//! buffers.
//!
//! `cargo bench -p highwater-record`

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_main};
use highwater_record::{
    BATCH_PREFIX_BYTES, BatchHeader, BatchLimits, Budget, BufferPool, Compression, RecordBatch,
    RecordBatchBuilder, body_crc, crc32c, crc32c_combine,
};

/// Values that compress about as well as lines of text do.
fn values(value_bytes: usize, total_bytes: usize) -> Vec<Vec<u8>> {
    let mut rng = fastrand::Rng::with_seed(1);
    let line = |_| {
        (0..value_bytes)
            .map(|_| b"0123456789,ABCDE"[rng.usize(..16)])
            .collect()
    };
    (0..total_bytes / value_bytes).map(line).collect()
}

fn build(compression: Compression, values: &[Vec<u8>]) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new(compression, 2 << 20);
    for (time, value) in (0..).zip(values) {
        builder
            .append(time, Some(b"key"), Some(value), &[])
            .expect("2 MiB are enough");
    }
    builder.seal().expect("not empty")
}

fn throughput(bytes: usize) -> Throughput {
    Throughput::Bytes(u64::try_from(bytes).expect("memory is below 2^64"))
}

fn checksums(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("crc32c");
    for len in [100, 1 << 10, 16 << 10, 1 << 20] {
        let bytes = vec![7; len];
        group.throughput(throughput(len));
        group.bench_with_input(
            BenchmarkId::from_parameter(len),
            &bytes,
            |bencher, bytes| {
                bencher.iter(|| crc32c(black_box(bytes)));
            },
        );
    }
    group.finish();
    criterion.bench_function("crc32c_combine/1MiB", |bencher| {
        bencher.iter(|| crc32c_combine(black_box(1), black_box(2), black_box(1 << 20)));
    });
    criterion.bench_function("body_crc/1MiB", |bencher| {
        let prefix = [1; BATCH_PREFIX_BYTES];
        bencher.iter(|| body_crc(black_box(&prefix), black_box(2), black_box(1 << 20)));
    });
}

fn parsing(criterion: &mut Criterion) {
    let bytes = build(Compression::None, &values(1024, 16 << 10));
    criterion.bench_function("header", |bencher| {
        bencher.iter(|| BatchHeader::read(black_box(&bytes)));
    });
    let mut group = criterion.benchmark_group("parse");
    let limits = BatchLimits::default();
    for value_bytes in [100, 1024, 16 << 10] {
        let batch = build(Compression::None, &values(value_bytes, 512 << 10));
        group.throughput(throughput(batch.len()));
        group.bench_with_input(
            BenchmarkId::new("none", value_bytes),
            &batch,
            |bencher, batch| bencher.iter(|| RecordBatch::parse(black_box(batch), &limits)),
        );
    }
    group.finish();
}

fn building(criterion: &mut Criterion) {
    let values = values(1024, 512 << 10);
    let mut group = criterion.benchmark_group("build");
    group.throughput(throughput(512 << 10)).sample_size(20);
    for compression in Compression::ALL {
        group.bench_function(compression.name(), |bencher| {
            bencher.iter(|| build(compression, black_box(&values)));
        });
    }
    group.finish();

    let bytes = build(Compression::None, &values);
    let limits = BatchLimits::default();
    let batch = RecordBatch::parse(&bytes, &limits).expect("valid");
    criterion.bench_function("iterate/512", |bencher| {
        bencher.iter(|| {
            let records = batch.records(&limits).expect("not compressed");
            records.iter().filter(Result::is_ok).count()
        });
    });

    let mut group = criterion.benchmark_group("read");
    group.throughput(throughput(512 << 10)).sample_size(20);
    for compression in Compression::ALL {
        let bytes = build(compression, &values);
        let limits = BatchLimits::default();
        group.bench_function(compression.name(), |bencher| {
            bencher.iter(|| {
                let batch = RecordBatch::parse(black_box(&bytes), &limits).expect("valid");
                let records = batch.records(&limits).expect("within the limits");
                records.iter().filter(Result::is_ok).count()
            });
        });
    }
    group.finish();
}

fn buffers(criterion: &mut Criterion) {
    let pool = BufferPool::new(Budget::new(64 << 20), 4096);
    let body = vec![7; 1 << 20];
    let mut group = criterion.benchmark_group("buffer");
    group.bench_function("get_and_drop", |bencher| {
        bencher.iter(|| pool.get(black_box(16 << 10)));
    });
    group.throughput(throughput(body.len()));
    group.bench_function("copy_in_and_share/1MiB", |bencher| {
        bencher.iter(|| {
            let mut writer = pool.get(body.len() + 64).expect("the budget is free");
            writer.put_zeros(64);
            writer.extend_from_slice(&body);
            writer.share(64..64 + body.len())
        });
    });
    group.finish();
}

/// In a module of their own, since the macro makes them public without a description.
mod groups {
    use super::{buffers, building, checksums, parsing};

    criterion::criterion_group!(benches, checksums, parsing, building, buffers);
}

criterion_main!(groups::benches);
