//! What the command line says.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

/// How `chaos` is called.
pub const HELP: &str = "\
usage: chaos --scenario FILE|NAME|all [options]
  --scenario WHAT   a file, a name in tests/scenarios, or all of them; may be repeated
  --minutes M       how long there are faults, instead of what the scenario says
  --seed S          instead of the scenario's
  --binary FILE     the server; else target/debug/highwater beside this program
  --python FILE     a Python with confluent-kafka and kafka-python
  --out DIR         where everything goes; else target/chaos
  --record          add a line to docs/chaos-campaigns.csv
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
    pub(super) record: bool,
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
            record: false,
            spoil: None,
        };
        let mut arguments = arguments;
        while let Some(flag) = arguments.next() {
            if flag == "--record" {
                wanted.record = true;
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
                "--spoil" => wanted.spoil = Some(value),
                _ => bail!("{flag} is not known; {HELP}"),
            }
        }
        ensure!(!wanted.scenarios.is_empty(), HELP);
        Ok(wanted)
    }
}
