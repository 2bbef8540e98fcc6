//! What loopback can carry from one thread to another: by TCP, with nothing around it, and by the
//! QUIC links of `net`, as between two nodes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use highwater_net::peer::{LOOPBACK_DATAGRAM_BYTES_MAX, NETWORK_DATAGRAM_BYTES_MAX};

use super::{Ceiling, Limits};
use crate::cpu::CpuMeter;
use crate::pipeline::{self, PipelineLoad};
use crate::spread::Spread;

/// The sizes of writes to TCP, in bytes.
pub const WRITES: [usize; 2] = [64 << 10, 1 << 20];

/// The largest UDP payloads of QUIC, in bytes: that of Ethernet, and what loopback takes.
pub const DATAGRAMS: [u16; 2] = [NETWORK_DATAGRAM_BYTES_MAX, LOOPBACK_DATAGRAM_BYTES_MAX];

/// What a run on its own costs.
struct Run {
    mb_per_second: f64,
    cpu_seconds_per_gb: f64,
}

/// Sends over one TCP connection, so much at once.
///
/// # Errors
/// When there are too few runs, or loopback does not let it.
pub fn tcp(limits: &Limits, write_bytes: usize) -> Result<Ceiling> {
    limits.check()?;
    tcp_run(warm_up(limits), write_bytes)?;
    let runs = (0..limits.runs).map(|_| tcp_run(limits.run, write_bytes));
    let runs: Vec<Run> = runs.collect::<Result<_>>()?;
    Ok(Ceiling::Tcp {
        write_bytes,
        runs: limits.runs,
        mb_per_second: Spread::of(runs.iter().map(|run| run.mb_per_second)),
        cpu_seconds_per_gb: Spread::of(runs.iter().map(|run| run.cpu_seconds_per_gb)),
    })
}

fn tcp_run(run: Duration, write_bytes: usize) -> Result<Run> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut sender = TcpStream::connect(listener.local_addr()?)?;
    sender.set_nodelay(true)?;
    let (receiver, _) = listener.accept()?;
    thread::scope(|scope| {
        let cpu = CpuMeter::start(&[std::process::id()])?;
        let start = Instant::now();
        let receiving = scope.spawn(move || receive(receiver, write_bytes));
        send(&mut sender, run, write_bytes)?;
        let received = receiving.join();
        let bytes = received.map_err(|_| anyhow!("the receiver has panicked"))??;
        let elapsed = start.elapsed().as_secs_f64();
        Ok(Run {
            mb_per_second: bytes / 1e6 / elapsed,
            cpu_seconds_per_gb: cpu.used()?.as_secs_f64() / (bytes / 1e9),
        })
    })
}

/// Sends until that long has passed, at least once.
fn send(to: &mut TcpStream, run: Duration, write_bytes: usize) -> Result<()> {
    let data = vec![0xA5; write_bytes];
    let start = Instant::now();
    loop {
        to.write_all(&data)?;
        if start.elapsed() >= run {
            return Ok(to.shutdown(Shutdown::Write)?);
        }
    }
}

/// Receives until nothing more comes. Gives how many bytes did.
fn receive(mut from: TcpStream, read_bytes: usize) -> Result<f64> {
    let mut data = vec![0; read_bytes];
    let mut bytes = 0.0;
    loop {
        let read = from.read(&mut data)?;
        bytes += read as f64;
        if read == 0 {
            return Ok(bytes);
        }
    }
}

/// Sends over a link of two nodes, in datagrams of up to so many bytes; each batch is acknowledged
/// when it has come. This end is in the runtime that it is called in, the other one has its own.
///
/// # Errors
/// When there are too few runs, or the two do not meet.
pub async fn quic(limits: &Limits, datagram_bytes: u16) -> Result<Ceiling> {
    limits.check()?;
    let load = PipelineLoad {
        datagram_bytes: Some(datagram_bytes),
        runs: limits.runs,
        warm_up: warm_up(limits),
        duration: limits.run,
        ..PipelineLoad::default()
    };
    let report = pipeline::measure_link(&load).await?;
    Ok(Ceiling::Quic {
        datagram_bytes,
        runs: limits.runs,
        mb_per_second: report.mb_per_second,
        cpu_seconds_per_gb: report.cpu_seconds_per_gb,
    })
}

/// How long nothing is counted before.
fn warm_up(limits: &Limits) -> Duration {
    limits.run / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Limits = Limits {
        runs: 5,
        run: Duration::from_millis(40),
    };

    /// Whatever the machine does beside, loopback carries more than nothing and less than memory.
    fn check(ceiling: &Ceiling) {
        let (Ceiling::Tcp {
            mb_per_second: rate,
            cpu_seconds_per_gb: cpu,
            ..
        }
        | Ceiling::Quic {
            mb_per_second: rate,
            cpu_seconds_per_gb: cpu,
            ..
        }) = ceiling
        else {
            panic!("{ceiling:?}");
        };
        let Spread { median, min, max } = *rate;
        assert!(0.0 < min && min <= median && median <= max, "{ceiling:?}");
        assert!(max < 1e6, "{ceiling:?}");
        assert!(cpu.min >= 0.0 && cpu.max < 1e6, "{ceiling:?}");
    }

    #[test]
    fn tcp_has_a_rate() {
        for write_bytes in WRITES {
            check(&tcp(&SHORT, write_bytes).unwrap());
        }
    }

    #[tokio::test]
    async fn quic_has_a_rate_by_its_datagrams() {
        for datagram_bytes in DATAGRAMS {
            check(&quic(&SHORT, datagram_bytes).await.unwrap());
        }
    }

    #[test]
    fn all_that_is_sent_is_received_and_counted() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (receiver, _) = listener.accept().unwrap();
        let receiving = thread::spawn(move || receive(receiver, 1_000));
        send(&mut sender, Duration::ZERO, 12_345).unwrap();
        assert_eq!(receiving.join().unwrap().unwrap(), 12_345.0);
    }

    #[tokio::test]
    async fn a_run_that_was_over_before_it_began_has_a_rate() {
        let run = Duration::from_nanos(1);
        check(&quic(&Limits { run, ..SHORT }, 1_452).await.unwrap());
    }

    #[tokio::test]
    async fn too_few_runs_are_refused() {
        let few = Limits { runs: 4, ..SHORT };
        assert!(tcp(&few, 1).is_err());
        assert!(quic(&few, 1_452).await.is_err());
    }
}
