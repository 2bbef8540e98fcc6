//! How long the produce path takes, from a client's frame to its committed answer, on nodes that
//! have no network and no disk: the loads of `instructions.rs`, by the clock.
//!
//! `cargo bench -p highwater-engine --bench engine`

mod by_hand;

use by_hand::{Load, Run};
use criterion::{BatchSize, Criterion, SamplingMode, Throughput, criterion_main};

const LOADS: [(&str, Load); 6] = [
    ("one_node/one_record", Load::one_record(1)),
    ("one_node/one_record_by_32", Load::one_record_by_32(1)),
    ("one_node/one_mebibyte", Load::one_mebibyte(1)),
    ("three_nodes/one_record", Load::one_record(3)),
    ("three_nodes/one_record_by_32", Load::one_record_by_32(3)),
    ("three_nodes/one_mebibyte", Load::one_mebibyte(3)),
];

fn produce(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("produce");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    for (name, load) in LOADS {
        Run::new(load).produce().check();
        let batches = u64::try_from(load.batches()).expect("few batches");
        group.throughput(Throughput::Elements(batches));
        group.bench_function(name, |bencher| {
            bencher.iter_batched(|| Run::new(load), Run::produce, BatchSize::PerIteration);
        });
    }
    group.finish();
}

/// In a module of its own, since the macro makes it public without a description.
mod groups {
    use super::produce;

    criterion::criterion_group!(benches, produce);
}

criterion_main!(groups::benches);
