//! How many instructions the produce path takes, from a client's frame to its committed answer:
//! counted by callgrind, so that a busy machine or a faster one gives the same number.
//!
//! `.ci/instructions.py` runs it and holds it against `instructions.txt`; docs/performance.md
//! says how to read it.
//!
//! Callgrind's processor has no AVX-512, whatever the machine has: CRC-32C takes its path by
//! SSE 4.2 and PCLMULQDQ. The C library would still choose how it copies by what else the machine
//! has, and copy long pieces by `rep movsb`, which callgrind counts byte by byte; so it is told to
//! forget AVX and that instruction, and copies by SSE2 everywhere.

#![expect(
    missing_docs,
    reason = "the macros make public what they put round our function"
)]

mod by_hand;

use std::hint::black_box;

use by_hand::{Load, Run};
use gungraun::prelude::*;
use gungraun::{Callgrind, library_benchmark, library_benchmark_group, main};

/// What glibc is to believe that the processor lacks.
const GLIBC_TUNABLES: &str = "glibc.cpu.hwcaps=-AVX_Fast_Unaligned_Load,-AVX2,-ERMS,-FSRM";

#[library_benchmark(teardown = Run::check)]
#[bench::one_node_one_record(Run::new(Load::one_record(1)))]
#[bench::one_node_one_record_by_32(Run::new(Load::one_record_by_32(1)))]
#[bench::one_node_one_mebibyte(Run::new(Load::one_mebibyte(1)))]
#[bench::three_nodes_one_record(Run::new(Load::one_record(3)))]
#[bench::three_nodes_one_record_by_32(Run::new(Load::one_record_by_32(3)))]
#[bench::three_nodes_one_mebibyte(Run::new(Load::one_mebibyte(3)))]
fn produce(run: Run) -> Run {
    black_box(run).produce()
}

library_benchmark_group!(name = path, benchmarks = [produce]);

main!(
    config = LibraryBenchmarkConfig::default()
        .env("GLIBC_TUNABLES", GLIBC_TUNABLES)
        .tool(Callgrind::with_args(["--cache-sim=no"])),
    library_benchmark_groups = path
);
