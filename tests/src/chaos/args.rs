//! What the command line says.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::list::List;

/// How `chaos` is called.
pub const HELP: &str = "\
usage: chaos --scenario FILE|NAME|all [options]
  --scenario WHAT   a file, a name in tests/scenarios, or all of them; may be repeated
  --minutes M       how long there are faults, instead of what the scenario says; what is longer
                    than it says is cut into equal rounds, each with a cluster of its own
  --seed S          instead of the scenario's; each further round has the next
  --binary FILE     the server; else target/debug/highwater beside this program
  --python FILE     a Python with confluent-kafka and kafka-python
  --out DIR         where everything goes; else target/chaos
  --record          add a line for each round to docs/chaos-campaigns.csv, and add them up
  --list FILE       the same, to another list
  --spoil WHAT      log or record: spoil a replica before it is read; the run must find it";

/// What is wanted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    pub(super) scenarios: Vec<String>,
    pub(super) lasts: Option<Duration>,
    pub(super) seed: Option<u64>,
    pub(super) binary: Option<PathBuf>,
    pub(super) python: Option<PathBuf>,
    pub(super) out: PathBuf,
    /// The list to which a line is added for each round.
    pub(super) list: Option<PathBuf>,
    pub(super) spoil: Option<String>,
}

impl Wanted {
    pub(super) fn read(arguments: impl Iterator<Item = String>) -> anyhow::Result<Wanted> {
        let mut wanted = Wanted {
            scenarios: Vec::new(),
            lasts: None,
            seed: None,
            binary: None,
            python: None,
            out: PathBuf::from("target/chaos"),
            list: None,
            spoil: None,
        };
        let mut arguments = arguments;
        while let Some(flag) = arguments.next() {
            if flag == "--record" {
                wanted.list = Some(List::default_path()?);
                continue;
            }
            let value = arguments.next();
            let value = value.with_context(|| format!("{flag} wants something; {HELP}"))?;
            match flag.as_str() {
                "--scenario" => wanted.scenarios.push(value),
                "--minutes" => {
                    let minutes: f64 = value.parse()?;
                    ensure!(minutes > 0.0, "minutes are more than none");
                    wanted.lasts = Some(Duration::from_secs_f64(minutes * 60.0));
                }
                "--seed" => wanted.seed = Some(value.parse()?),
                "--binary" => wanted.binary = Some(value.into()),
                "--python" => wanted.python = Some(value.into()),
                "--out" => wanted.out = value.into(),
                "--list" => wanted.list = Some(value.into()),
                "--spoil" => wanted.spoil = Some(value),
                _ => bail!("{flag} is not known; {HELP}"),
            }
        }
        ensure!(!wanted.scenarios.is_empty(), HELP);
        Ok(wanted)
    }
}
