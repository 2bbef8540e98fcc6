//! What the command line asks for.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use highwater_engine::testing::{Plan, Profile};

/// How the binary is called.
pub const HELP: &str = "usage: sim [--seeds N] [--first S] [--minutes M] [--nodes K] \
    [--profile swarm|calm|net|disk|beyond] [--only FAULT,FAULT..] [--trace] [--history FILE] \
    [--record]";

/// What is to be run.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// The first seed.
    pub first: u64,
    /// How many seeds.
    pub seeds: u64,
    /// Begin no seed after this long.
    pub limit: Option<Duration>,
    /// How many nodes; drawn from the seed if not given.
    pub nodes: Option<u32>,
    /// Which faults.
    pub profile: Profile,
    /// Only these of the plan's faults, by number.
    pub only: Option<Vec<usize>>,
    /// Print all that happens.
    pub trace: bool,
    /// Only print the hash of each run's trace.
    pub hash: bool,
    /// Write the clients' history there.
    pub history: Option<PathBuf>,
    /// Add the result to the list of campaigns.
    pub record: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            first: 1,
            seeds: 100,
            limit: None,
            nodes: None,
            profile: Profile::Swarm,
            only: None,
            trace: false,
            hash: false,
            history: None,
            record: false,
        }
    }
}

/// How many nodes a seed has: three mostly, every number from 1 to 9 sometimes.
#[must_use]
pub fn nodes_of_seed(seed: u64) -> u32 {
    const NODES: [u32; 20] = [3, 3, 5, 3, 1, 3, 5, 3, 7, 3, 2, 3, 4, 3, 6, 3, 9, 3, 8, 3];
    NODES[usize::try_from(seed % 20).expect("below twenty")]
}

impl Wanted {
    /// Reads the command line.
    ///
    /// # Errors
    ///
    /// If something in it is not known or out of its range.
    pub fn parse(mut args: impl Iterator<Item = String>) -> anyhow::Result<Wanted> {
        let mut wanted = Wanted::default();
        while let Some(flag) = args.next() {
            match flag.as_str() {
                "--trace" => wanted.trace = true,
                "--hash" => wanted.hash = true,
                "--record" => wanted.record = true,
                _ => {
                    let value = args.next();
                    let value = value.with_context(|| format!("{flag} wants a value"))?;
                    wanted
                        .set(&flag, &value)
                        .with_context(|| format!("{flag} {value}"))?;
                }
            }
        }
        Ok(wanted)
    }

    fn set(&mut self, flag: &str, value: &str) -> anyhow::Result<()> {
        match flag {
            "--seeds" => self.seeds = value.parse()?,
            "--first" => self.first = value.parse()?,
            "--minutes" => {
                let minutes: u64 = value.parse()?;
                self.limit = Some(Duration::from_secs(minutes * 60));
            }
            "--nodes" => match value.parse()? {
                nodes @ 1..=9 => self.nodes = Some(nodes),
                _ => bail!("1 to 9"),
            },
            "--profile" => self.profile = Profile::find(value).context("no such profile")?,
            "--only" => {
                let numbers = value.split(',').filter(|number| !number.is_empty());
                self.only = Some(numbers.map(str::parse).collect::<Result<_, _>>()?);
            }
            "--history" => self.history = Some(PathBuf::from(value)),
            _ => bail!("not known"),
        }
        Ok(())
    }

    /// The plan of a seed.
    #[must_use]
    pub fn plan(&self, seed: u64) -> Plan {
        let nodes = self.nodes.unwrap_or_else(|| nodes_of_seed(seed));
        let mut plan = Plan::new(seed, nodes, self.profile);
        if let Some(only) = &self.only {
            let faults = std::mem::take(&mut plan.faults).into_iter().enumerate();
            let meant = faults.filter(|(number, _)| only.contains(number));
            plan.faults = meant.map(|(_, fault)| fault).collect();
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> anyhow::Result<Wanted> {
        Wanted::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_command_line_says_what_is_run() {
        let wanted =
            parse("--seeds 7 --first 3 --minutes 2 --nodes 5 --profile net --only 1,4").unwrap();
        assert_eq!((wanted.seeds, wanted.first, wanted.nodes), (7, 3, Some(5)));
        assert_eq!(wanted.limit, Some(Duration::from_secs(120)));
        assert_eq!(wanted.only, Some(vec![1, 4]));
        let all = Plan::new(3, 5, Profile::Net).faults;
        assert_eq!(wanted.plan(3).faults, [all[1].clone(), all[4].clone()]);
        assert_eq!(parse("--only ,").unwrap().only, Some(Vec::new()));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let lines = [
            "--nodes 10",
            "--nodes",
            "--what 3",
            "--profile wild",
            "--only x",
        ];
        for line in lines {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
