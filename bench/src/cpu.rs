//! Processor time of processes, from /proc (proc_pid_stat(5)).

use std::time::Duration;

use anyhow::{Context, Result};

/// What /proc counts in: USER_HZ, which is 100 on every Linux that Highwater runs on.
const TICKS_PER_SECOND: u64 = 100;

/// Adds up the processor time of processes from now on.
#[derive(Debug, Clone)]
pub struct CpuMeter {
    processes: Vec<(u32, Duration)>,
}

impl CpuMeter {
    /// Starts to count.
    ///
    /// # Errors
    /// When one of the processes is not there.
    pub fn start(pids: &[u32]) -> Result<Self> {
        let processes = pids.iter().map(|&pid| Ok((pid, used(pid)?)));
        Ok(Self {
            processes: processes.collect::<Result<_>>()?,
        })
    }

    /// What they used since.
    ///
    /// # Errors
    /// When one of them has ended.
    pub fn used(&self) -> Result<Duration> {
        self.processes
            .iter()
            .map(|&(pid, before)| Ok(used(pid)?.saturating_sub(before)))
            .sum()
    }
}

/// Adds up that of this process and that of a cluster's from now on.
#[derive(Debug)]
pub(crate) struct Cpus {
    client: CpuMeter,
    /// Nothing, if no process was named.
    servers: Option<CpuMeter>,
}

/// What they have used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    client: Duration,
    servers: Option<Duration>,
}

impl Cpus {
    pub(crate) fn start(server_pids: &[u32]) -> Result<Cpus> {
        let is_any = !server_pids.is_empty();
        Ok(Cpus {
            client: CpuMeter::start(&[std::process::id()])?,
            servers: is_any.then(|| CpuMeter::start(server_pids)).transpose()?,
        })
    }

    pub(crate) fn used(&self) -> Result<Used> {
        Ok(Used {
            client: self.client.used()?,
            servers: self.servers.as_ref().map(CpuMeter::used).transpose()?,
        })
    }
}

impl Used {
    /// Seconds of this process for each of so many of something.
    pub(crate) fn client_per(&self, count: f64) -> f64 {
        self.client.as_secs_f64() / count
    }

    /// The same of the cluster's.
    pub(crate) fn servers_per(&self, count: f64) -> Option<f64> {
        Some(self.servers?.as_secs_f64() / count)
    }
}

fn used(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("process {pid}: {path}"))?;
    let ticks = ticks(&text).with_context(|| format!("{path} is not as proc_pid_stat(5) says"))?;
    Ok(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
}

/// User and system time. The name, in brackets, may hold anything, brackets too.
fn ticks(stat: &str) -> Option<u64> {
    /// Fields 14 and 15, counted behind the name, which is the second.
    const USER_TIME: usize = 14 - 3;
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(USER_TIME);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 6 7 20 0 1 0 99";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_a_time_and_an_absent_one_is_an_error() {
        let meter = CpuMeter::start(&[std::process::id()]).unwrap();
        assert!(meter.used().unwrap() < Duration::from_secs(3_600));
        assert!(CpuMeter::start(&[u32::MAX]).is_err());
    }
}
